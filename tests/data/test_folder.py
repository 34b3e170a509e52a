"""Folders of class folders: which pictures are listed, with which class and part."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import peewit
from made_sources import files_of, picture, write, write_classes
from peewit.data import Dataset, listing_of
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION, Listing
from peewit.errors import PeewitError


def listed(path: Path) -> Listing:
    listing = listing_of(path)
    assert listing is not None
    return listing


def classes(listing: Listing) -> list[str]:
    return [listing.class_names[label] for label in listing.labels]


def refused(path: Path) -> str:
    with pytest.raises(PeewitError) as caught:
        listing_of(path)
    return str(caught.value)


def test_class_folders(tmp_path: Path) -> None:
    files = files_of({"dog": 2, "cat": 3})
    listing = listed(write(tmp_path, files))
    assert listing.class_names == ("cat", "dog")
    assert list(listing.names) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert listing.labels.tolist() == [0, 0, 0, 1, 1]
    assert set(listing.parts) == {UNKNOWN}
    assert listing.notes == ()
    assert [listing.files.read(n) for n in range(5)] == [files[name] for name in listing.names]
    assert listing.stamps[:, 0].tolist() == [len(files[name]) for name in listing.names]


def test_stamps_change_with_the_files(tmp_path: Path) -> None:
    before = listed(write_classes(tmp_path, {"a": 2, "b": 1})).stamps
    os.utime(tmp_path / "a" / "1.png", ns=(5, 5))
    changed = (listed(tmp_path).stamps != before).any(1)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_parts(validation: str, tmp_path: Path) -> None:
    counts = {"Train/a": 2, "Train/b": 1, f"{validation}/a": 1, "test/b": 1}
    listing = listed(write_classes(tmp_path, counts))
    parts = dict(zip(listing.names, listing.parts.tolist(), strict=True))
    assert parts == {
        "Train/a/0.png": TRAIN,
        "Train/a/1.png": TRAIN,
        "Train/b/0.png": TRAIN,
        f"{validation}/a/0.png": VALIDATION,
        "test/b/0.png": TEST,
    }
    splits = peewit.load(str(tmp_path))
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (4, 1)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path, {"bus": 1, "car": 1, "train": 1}))
    assert listing.class_names == ("bus", "car", "train")
    assert set(listing.parts) == {UNKNOWN}


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path, {"a/monday": 1, "a/tuesday/x": 1, "b": 1}))
    assert classes(listing) == ["a", "a", "b"]
    assert listing.notes[:1] != ()  # b has one picture
    nested = listed(write_classes(tmp_path / "n", {"pets/cat": 2, "pets/dog": 2, "farm/cow": 2}))
    assert nested.class_names == ("farm", "pets")
    (note,) = nested.notes
    assert "3 folders inside them are not classes" in note


def test_natural_order_of_numbers(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path, {str(n): 2 for n in (10, 2, 1, 0)}))
    assert listing.class_names == ("0", "1", "2", "10")


def test_what_other_programs_write_is_left_out_silently(tmp_path: Path) -> None:
    unwanted = (".hidden/1.png", "__MACOSX/a/1.png", "a/._0.png", "a/Thumbs.db", "a/.DS_Store")
    files = files_of({"a": 2, "b": 2}) | dict.fromkeys(unwanted, picture())
    files["a/.ipynb_checkpoints/0-checkpoint.png"] = picture()
    listing = listed(write(tmp_path, files))
    assert list(listing.names) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert listing.notes == ()


def test_other_files_are_counted_and_named(tmp_path: Path) -> None:
    files = files_of({"a": 2, "b": 2}) | {"a/notes.txt": b"x", "labels.csv": b"x", "b/x.json": b""}
    listing = listed(write(tmp_path, files))
    assert len(listing) == 4
    (note,) = listing.notes
    assert note.startswith("3 files without the suffix of a picture are left out: ")
    assert all(name in note for name in ("a/notes.txt", "labels.csv", "b/x.json"))


def test_the_content_decides_without_a_suffix(tmp_path: Path) -> None:
    files = {"a/one": picture(1), "a/two": picture(2, "JPEG"), "b/three": picture(3, "GIF")}
    files |= {"b/four": picture(4, "WEBP"), "b/README": b"not a picture", "b/empty": b""}
    files |= {"b/wrong.jpg": b"not a picture"}  # listed: it is unreadable, which is said later
    names = list(listed(write(tmp_path, files)).names)
    assert names == ["a/one", "a/two", "b/four", "b/three", "b/wrong.jpg"]


def test_pictures_beside_class_folders(tmp_path: Path) -> None:
    files = files_of({"train/a": 2, "train/b": 2}) | {"train/x.png": picture(), "y.png": picture()}
    files["extra/z.png"] = picture()
    listing = listed(write(tmp_path, files))
    assert len(listing) == 4
    assert any("1 picture in no class folder is left out" in note for note in listing.notes)
    assert any("in a folder beside train is left out: extra" in note for note in listing.notes)


def test_empty_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "c").mkdir()
    listing = listed(tmp_path)
    assert listing.class_names == ("a", "b")
    assert listing.notes == ("1 empty class folder is left out: c",)


def test_classes_with_one_picture_are_named(tmp_path: Path) -> None:
    (note,) = listed(write_classes(tmp_path, {"a": 2, "b": 1, "c": 1})).notes
    assert note == "2 classes have only one picture: b, c"


@pytest.mark.skipif(sys.platform != "linux", reason="file systems that ignore case")
def test_classes_that_differ_in_case_only(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path / "one", {"Cat": 2, "cat": 2}))
    assert listing.class_names == ("Cat", "cat")
    assert "differ only in upper and lower case" in listing.notes[0]
    message = refused(
        write_classes(tmp_path / "two", {"train/Cat": 2, "train/b": 2, "test/cat": 1})
    )
    assert "rename cat to Cat" in message


@pytest.mark.skipif(sys.platform != "linux", reason="file systems with rules for names")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    write_classes(tmp_path, {"猫": 1, "b": 2})
    long = "x" * 251 + ".png"
    (tmp_path / "b" / long).write_bytes(picture(7))
    (tmp_path / "b" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(9))
    listing = listed(tmp_path)
    assert listing.class_names == ("b", "猫")
    names = list(listing.names)
    assert f"b/{long}" in names
    number = names.index("b/caf\\xe9.png")
    assert listing.files.read(number) == picture(9)
    "\n".join([*names, *listing.class_names, *listing.notes]).encode()  # can be printed


@pytest.mark.skipif(sys.platform != "linux", reason="macOS decomposes names itself")
def test_accents_written_in_two_ways_are_one_class(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path, {"train/é": 2, "train/b": 2, "test/e\u0301": 1}))
    assert listing.class_names == ("b", "é")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = write_classes(tmp_path / "elsewhere", {"pictures": 2})
    folder = write_classes(tmp_path / "data", {"a": 2})
    (folder / "b").symlink_to(elsewhere / "pictures")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "a" / "file.png").symlink_to(elsewhere / "pictures" / "0.png")
    listing = listed(folder)
    assert list(listing.names) == [
        *("a/0.png", "a/1.png", "a/file.png"),
        *("b/0.png", "b/1.png"),
    ]
    assert "1 link to a missing file is left out: a/gone.png" in listing.notes
    assert "1 link to a folder that it is in is left out: a/up" in listing.notes


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
@pytest.mark.parametrize("gone", [None, "07000.png"])
def test_very_many_pictures_in_one_folder(gone: str | None, tmp_path: Path) -> None:
    # so many that another process looks at some of them
    folder = write_classes(tmp_path, {"a": 2, "b": 2}) / "a"
    for number in range(25_000):
        os.link(folder / f"{number % 2}.png", folder / f"{number:05}.png")
    os.utime(folder / "1.png", ns=(7, 7))
    if gone is not None:
        (folder / "5").write_bytes(picture(5))
        (folder / gone).unlink()
        (folder / gone).symlink_to(tmp_path / "gone.png")
    listing = listed(tmp_path)
    names = sorted(f"a/{path.name}" for path in folder.iterdir() if path.name != gone)
    assert list(listing.names) == [*names, "b/0.png", "b/1.png"]
    states = [(tmp_path / name).stat() for name in listing.names]
    assert listing.stamps.tolist() == [[state.st_size, state.st_mtime_ns] for state in states]
    assert len(listing.notes) == (gone is not None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "a" / "pipe")
    listing = listed(tmp_path)
    assert len(listing) == 4
    assert listing.notes[0].startswith("2 special files are left out")


def test_a_folder_too_many(tmp_path: Path) -> None:
    write_classes(tmp_path / "photos", {"cat": 2, "dog": 2})
    message = refused(tmp_path)
    assert "contains only the folder photos" in message
    assert message.endswith(f"use {tmp_path / 'photos'}")
    write_classes(tmp_path / "photos", {"more/a": 1})
    inner = write_classes(tmp_path / "sets", {"one/train/a": 2, "one/train/b": 2, "two/x": 1})
    assert f"use {inner / 'one'} if it is a data set" in refused(inner)


def test_a_folder_too_few(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    message = refused(tmp_path / "cat")
    assert "has no class folders: it has 2 pictures directly in it" in message
    assert f"use {tmp_path}, if cat, dog are the classes" in message


def test_parts_without_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path, {"train": 2, "test": 1})
    (tmp_path / "train.csv").write_text("id,label")
    message = refused(tmp_path)
    assert "the pictures are directly in test, train" in message
    assert message.endswith(f"use {tmp_path / 'train.csv'}")


def test_a_test_part_without_a_training_part(tmp_path: Path) -> None:
    assert "no folder train" in refused(write_classes(tmp_path, {"test/a": 1, "test/b": 1}))
    assert "beside it are a, b" in refused(write_classes(tmp_path, {"a": 1, "b": 1}))


def test_a_test_part_with_unknown_classes(tmp_path: Path) -> None:
    message = refused(write_classes(tmp_path, {"train/a": 2, "train/b": 2, "test/c": 1}))
    assert "classes that the training part does not have: c;" in message


def test_folders_within_folders_without_end(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 2, "b" + "/b" * 150: 2})
    assert "more than 100 folders in each other" in refused(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    assert "has one class, a: a classifier needs at least two" in refused(
        write_classes(tmp_path, {"a": 2})
    )


def test_no_pictures(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.txt": b"", "b/y.txt": b""})
    with pytest.raises(PeewitError, match="it has neither pictures nor"):
        peewit.load(str(tmp_path))


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path, {"a": 2, "b": 2})
    list_names = os.listdir

    def refuse(path: str | Path) -> list[str]:  # a real refusal does not stop root
        if Path(path) == tmp_path / "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return list_names(path)

    monkeypatch.setattr("os.listdir", refuse)
    assert f"cannot read {tmp_path / 'b'}: permission denied" in refused(tmp_path)


def test_a_removed_file_is_said_when_it_is_read(tmp_path: Path) -> None:
    listing = listed(write_classes(tmp_path, {"a": 2, "b": 2}))
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(PeewitError, match=r"cannot read .*1\.png: no such file"):
        listing.files.read(1)


def test_a_data_set_from_a_folder(tmp_path: Path) -> None:
    data = Dataset.from_folder(write_classes(tmp_path, {"a": 2, "b": 3}))
    assert (len(data), tuple(data.class_names)) == (5, ("a", "b"))
    assert data.names is not None
    assert data.names[4] == "b/2.png"
    assert (np.asarray(data.images[[4, 0]])[:, 0, 0] == [[4, 0, 7], [0, 0, 7]]).all()
