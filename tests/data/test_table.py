"""Tables: CSV, metadata.csv beside pictures, and Parquet as Hugging Face writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import peewit
from made_sources import files_of, picture, write, write_classes
from peewit.data import listing_of
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
from peewit.errors import PeewitError

FILES = files_of({"one": 2, "two": 2})


def listed(path: Path) -> Listing:
    listing = listing_of(path)
    assert listing is not None
    return listing


def refused(path: Path) -> str:
    with pytest.raises(PeewitError) as caught:
        listing_of(path)
    message = str(caught.value)
    assert message.isprintable()
    return message


def classes(listing: Listing) -> dict[str, str]:
    labels = listing.labels.tolist()
    return {name: listing.class_names[n] for name, n in zip(listing.names, labels, strict=True)}


def table(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    write(folder, FILES)
    path = folder / name
    path.write_text(text, encoding, newline="")
    return path


ROWS = "one/0.png,cat\none/1.png,dog\ntwo/0.png,cat\n"
CLASSES = {"one/0.png": "cat", "one/1.png": "dog", "two/0.png": "cat"}


@pytest.mark.parametrize(
    "header",
    [
        "path,label",
        "File Name,Class",
        "filename,category",
        "image_path,target",
        "img,breed",
        "id,x",
    ],
)
def test_usual_names_of_columns(header: str, tmp_path: Path) -> None:
    listing = listed(table(tmp_path, f"{header}\n{ROWS}"))
    assert classes(listing) == CLASSES
    assert listing.class_names == ("cat", "dog")
    assert listing.files.read(1) == FILES["one/1.png"]
    assert set(listing.parts) == {UNKNOWN}
    assert len(peewit.load(str(tmp_path / "labels.csv")).train) == 3


def test_without_a_header(tmp_path: Path) -> None:
    assert classes(listed(table(tmp_path, ROWS))) == CLASSES


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings(separator: str, encoding: str, tmp_path: Path) -> None:
    text = f"path,label\n{ROWS}".replace("cat", "Kätzchen").replace(",", separator)
    listing = listed(table(tmp_path, text.replace("\n", "\r\n"), encoding=encoding))
    assert listing.class_names == ("dog", "Kätzchen")


def test_a_column_of_parts_and_other_columns(tmp_path: Path) -> None:
    text = (
        "path,label,split,person,fold\none/0.png,a,train,Ann,1\n"
        "one/1.png,b,Train,Ben,2\ntwo/0.png,a,val,Ann,1\ntwo/1.png,b,test,,2\n"
    )
    listing = listed(table(tmp_path, text))
    assert listing.parts.tolist() == [TRAIN, TRAIN, VALIDATION, TEST]
    assert {name: list(values) for name, values in listing.columns.items()} == {
        "person": ["Ann", "Ben", "Ann", ""],
        "fold": ["1", "2", "1", "2"],
    }


def test_a_list_of_parts_takes_the_folders_as_classes(tmp_path: Path) -> None:
    text = "file,split\none/0.png,train\ntwo/0.png,train\none/1.png,test\n"
    listing = listed(table(tmp_path, text))
    assert classes(listing) == {"one/0.png": "one", "two/0.png": "two", "one/1.png": "one"}
    assert listing.parts.tolist() == [TRAIN, TRAIN, TEST]


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    text = f"path,label\n{ROWS}two/1.png,\n,cat\ngone.png,dog\none/0.png,cat\n\n"
    listing = listed(table(tmp_path, text))
    assert classes(listing) == CLASSES
    notes = "\n".join(listing.notes)
    assert "1 row without a label is left out: line 5" in notes
    assert "1 row without a path is left out: line 6" in notes
    assert "1 row whose picture does not exist is left out: gone.png (line 7)" in notes
    assert "1 row that repeats another is left out: line 8" in notes


def test_a_picture_with_two_labels_is_left_out(tmp_path: Path) -> None:
    listing = listed(table(tmp_path, f"path,label\n{ROWS}two/1.png,dog\none/0.png,dog\n"))
    assert "one/0.png" not in listing.names
    assert "2 rows with a picture that has another label elsewhere" in listing.notes[0]


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "one/../../x.png", "..\\x.png"])
def test_paths_that_leave_the_folder(path: str, tmp_path: Path) -> None:
    write(tmp_path, {"x.png": picture()})
    message = refused(table(tmp_path / "in", f"path,label\n{ROWS}{path},cat\n"))
    assert "(line 5) leaves the folder of the table" in message


def test_absolute_paths_into_the_folder(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{tmp_path}/{row}\n" for row in ROWS.splitlines())
    assert classes(listed(table(tmp_path, text))) == CLASSES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("path,label\n", "has no rows"),
        ("path,size,day\na.png,1,2\n", "has no column for the labels: its columns are path, size"),
        ("title,label,day\nx,1,2\n", "no column for the paths of the pictures"),
        ("path,label\nnone/a.png,x\nnone/b.png,y\n", "there is no "),
        ("path,label\none/0.png,x,y\n", "line 2 has 3 cells, but there are 2 columns"),
        ("path,path\none/0.png,x\n", "two of its columns have the same name"),
        ("path,label\none/0.png,x\none/1.png,x\n", "has one class, x"),
        ("path,label\none/0.png,\n", "1 row without a label"),
        ("path,label,split\none/0.png,a,test\none/1.png,b,test\n", "no pictures to train with"),
    ],
)
def test_bad_tables(text: str, said: str, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    with pytest.raises(PeewitError, match=said):
        peewit.load(str(path))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\none/0.png,café\n", encoding="latin-1")
    assert "it is not UTF-8 text; save it as UTF-8" in refused(path)


def test_metadata_beside_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path, {f"{n}.png": picture(n) for n in range(3)})
    (folder / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n2.png,a\n")
    assert classes(listed(folder)) == {"0.png": "a", "1.png": "b", "2.png": "a"}


def test_metadata_in_each_part(tmp_path: Path) -> None:
    for part, extra in (("train", ",person\n"), ("test", "\n")):
        folder = write(tmp_path / part, {f"{n}.png": picture(n) for n in range(2)})
        cell = ",Ann" if part == "train" else ""
        rows = f"file_name,label{extra}0.png,a{cell}\n1.png,b{cell}\n"
        (folder / "metadata.csv").write_text(rows)
    listing = listed(tmp_path)
    parts = dict(zip(listing.names, listing.parts.tolist(), strict=True))
    assert parts == {
        "train/0.png": TRAIN,
        "train/1.png": TRAIN,
        "test/0.png": TEST,
        "test/1.png": TEST,
    }
    people = dict(zip(listing.names, listing.columns["person"], strict=True))
    assert people == {"train/0.png": "Ann", "train/1.png": "Ann"} | dict.fromkeys(
        ("test/0.png", "test/1.png"), ""
    )


def test_metadata_without_labels_leaves_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "metadata.csv").write_text("file_name,photographer,day\na/0.png,Ann,1\n")
    assert listed(tmp_path).class_names == ("a", "b")


def hugging_face(
    path: Path,
    pictures: Sequence[bytes | None],
    labels: Sequence[int | None],
    names: Sequence[str] | None = ("cat", "dog"),
    image: str = "image",
    **columns: Any,
) -> Path:
    """Write a Parquet file with two rows in each row group."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    structs = [{"bytes": content, "path": f"p{n}.png"} for n, content in enumerate(pictures)]
    content = pa.table(
        {
            image: pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels, pa.int64()),
            **columns,
        }
    )
    if names is not None:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        content = content.replace_schema_metadata(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=2)
    return path


@pytest.mark.parametrize("image", ["image", "img"])
def test_a_parquet_file(image: str, tmp_path: Path) -> None:
    contents = [picture(n) for n in range(5)]
    path = hugging_face(
        tmp_path / "a.parquet", contents, [0, 1, 1, 0, 1], image=image, person=list("abcab")
    )
    listing = listed(path)
    assert listing.class_names == ("cat", "dog")
    assert listing.labels.tolist() == [0, 1, 1, 0, 1]
    assert listing.names[3] == "a.parquet/3/p3.png"
    assert listing.columns["person"] == list("abcab")
    assert listing.columns["path"] == [f"p{n}.png" for n in range(5)]
    for number in (0, 4, 2, 1, 3):
        assert listing.files.read(number) == contents[number]
    assert peewit.load(str(path)).train.images[4][0, 0].tolist() == [4, 0, 7]


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for number, part in enumerate(("train-00000-of-00002", "train-00001-of-00002")):
        contents = [picture(10 * number + n) for n in range(3)]
        hugging_face(tmp_path / f"data/{part}.parquet", contents, [0, 1, 1])
    hugging_face(tmp_path / "data/validation-00000-of-00001.parquet", [picture(50)], [0])
    hugging_face(tmp_path / "data/test-00000-of-00001.parquet", [picture(60)], [1])
    hugging_face(tmp_path / ".cache/test.parquet", [picture(60)], [1])
    listing = listed(tmp_path)
    assert sorted(listing.parts.tolist()) == [TRAIN] * 6 + [VALIDATION] + [TEST]
    for row, name in enumerate(listing.names):
        file, _, number = name.removesuffix(".png").removeprefix("data/").partition(".parquet/")
        start = {"train-00000": 0, "train-00001": 10, "validation-": 50, "test-00000-": 60}[
            file[:11]
        ]
        assert listing.files.read(row) == picture(start + int(number.partition("/")[0]))
    splits = peewit.load(str(tmp_path))
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (7, 1)


def test_unlabelled_rows_and_numbers_without_names(tmp_path: Path) -> None:
    contents = [picture(n) for n in range(4)]
    path = hugging_face(tmp_path / "a.parquet", contents, [0, 1, -1, None])
    listing = listed(path)
    assert len(listing) == 2
    assert listing.notes[0] == ("2 rows without a label are left out: a.parquet/2, a.parquet/3")
    path = hugging_face(tmp_path / "a.parquet", contents, [2, 10, 2, 10], names=None)
    assert listed(path).class_names == ("2", "10")
    path = hugging_face(tmp_path / "a.parquet", contents, [0, 1, 2, 0])
    assert "has the label 2: its schema names 2 classes" in refused(path)


def test_a_row_without_a_picture_is_said_when_it_is_read(tmp_path: Path) -> None:
    path = hugging_face(tmp_path / "a.parquet", [picture(), None, picture(2)], [0, 1, 1])
    with pytest.raises(
        PeewitError, match=r"cannot read a\.parquet/1/p1\.png: there is no picture in"
    ):
        listed(path).files.read(1)


def test_parquet_with_bytes_or_paths(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, FILES)
    names = list(FILES)
    labels = ["a", "b", "a", "b"]
    embedded = pa.table({"picture": list(FILES.values()), "species": labels})
    pq.write_table(embedded, tmp_path / "bytes.parquet")
    listing = listed(tmp_path / "bytes.parquet")
    assert [listing.files.read(n) for n in range(4)] == list(FILES.values())
    pq.write_table(pa.table({"path": names, "label": labels}), tmp_path / "paths.parquet")
    listing = listed(tmp_path / "paths.parquet")
    assert classes(listing) == dict(zip(names, labels, strict=True))
    assert listing.files.read(3) == FILES[names[3]]


def test_damaged_parquet(tmp_path: Path) -> None:
    path = hugging_face(tmp_path / "a.parquet", [picture(n) for n in range(4)], [0, 1, 0, 1])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "it is damaged, or not a Parquet file" in refused(path)
    path.write_bytes(content[:40] + bytes(200) + content[240:])
    with pytest.raises(PeewitError, match="cannot read"):
        peewit.load(str(path)).train.images[:]


def test_parquet_without_a_column_of_labels(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [picture()], "w": [1], "h": [2]}), tmp_path / "a.parquet")
    assert "no column for the labels: its columns are image, w, h" in refused(
        tmp_path / "a.parquet"
    )
