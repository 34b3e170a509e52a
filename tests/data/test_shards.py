"""Tar shards in WebDataset's layout: what is written is read again, and foreign ones too."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_pictures import folder_of_pictures
from peewit.__main__ import main
from peewit.data import shards
from peewit.data.dataset import Dataset
from peewit.data.sources import Splits, load
from peewit.errors import PeewitError, UsageError


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for part in ("train", "val", "test"):
        folder_of_pictures(folder / part, 4, size=(20, 24))
    return folder


def by_content(splits: Splits) -> list[tuple[str, str, str]]:
    """Return part, class and checksum of every picture, sorted."""
    found = []
    for part, data in (("train", splits.train), ("test", splits.test)):
        assert data is not None
        files = data.images.store.listing.files  # type: ignore[attr-defined]
        for place, row in enumerate(data.images.rows):  # type: ignore[attr-defined]
            held = data.validation is not None and data.validation[place]
            content = hashlib.sha256(files.read(int(row))).hexdigest()
            found.append(("val" if held else part, data.class_names[data.labels[place]], content))
    return sorted(found)


def test_shards_have_the_pictures_of_their_source(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    assert main(["data", "shard", str(pictures), str(out), "--size", "1"]) == 0
    assert "36 pictures in 1 shards" in capsys.readouterr().out
    assert by_content(load(str(out))) == by_content(load(str(pictures)))
    (tar,) = out.glob("*.tar")
    index = json.loads((out / shards.INDEX).read_text("utf-8"))
    checksum = hashlib.sha256(tar.read_bytes()).hexdigest()
    assert index["shards"] == [{"file": tar.name, "pictures": 36, "sha256": checksum}]
    # the layout that other programs expect
    with tarfile.open(tar) as archive:
        names = archive.getnames()
        assert {name.rpartition(".")[2] for name in names} == {"png", "cls", "json"}
        number = archive.extractfile(names[1])
        assert number is not None
        assert number.read().decode() in ("0", "1", "2")


def test_the_same_source_gives_the_same_bytes_in_shards_of_limited_size(
    pictures: Path, tmp_path: Path
) -> None:
    splits = load(str(pictures))
    for name in ("one", "two"):
        written = shards.write_shards(splits, tmp_path / name, 20_000, lambda: None)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert written.shards == len(one) - 1 > 1
    assert all(len(content) <= 20_000 for content in one.values())
    assert by_content(load(str(tmp_path / "one"))) == by_content(splits)
    # each archive is a sample of the whole
    first = load(str(tmp_path / "one")).train
    assert len(set(first.labels[:8].tolist())) > 1


def test_arrays_become_png_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)
    data = Dataset(images, np.arange(6) % 2, ["cat", "dog"])
    shards.write_shards(Splits(data, None, ()), tmp_path / "out", 10**6, lambda: None)
    read = load(str(tmp_path / "out")).train
    files = read.images.store.listing.files  # type: ignore[attr-defined]
    pixels = [np.asarray(Image.open(io.BytesIO(files.read(row)))) for row in range(6)]
    assert sorted(one.tobytes() for one in pixels) == sorted(one.tobytes() for one in images)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"7.png": png(1), "7.cls": b"cat"}, {"8.png": png(2), "8.cls": b"dog\n"}),
        ({"a/7.png": png(1), "a/7.cls": b"0"}, {"b/7.png": png(2), "b/7.cls": b"1"}),
        ({"cat/7.png": png(1)}, {"dog/7.png": png(2), "dog/7.txt": b"other"}),
    ],
)
def test_foreign_shards(first: dict[str, bytes], second: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    write_tar(folder / "train-0000.tar", first | {"9.png": png(9)})
    write_tar(folder / "train-0001.tar", second)
    write_tar(folder / "val-0000.tar", second)
    splits = load(str(folder))
    assert len(splits.train.class_names) == 2
    assert any("without a class" in note for note in splits.notes)
    assert splits.train.validation is not None
    assert splits.train.validation.tolist() == [False, False, True]


def test_failures(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main(["data", "shard", str(pictures), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(UsageError):
        shards.write_shards(load(str(pictures)), out, 10**6, lambda: None)
    folder = tmp_path / "folder"
    archive = write_tar(folder / "a.tar", {"1.png": png(1)})
    with pytest.raises(PeewitError, match="no labelled pictures"):
        load(str(folder))
    write_tar(archive, {"../1.png": png(1), "../1.cls": b"0"})
    with pytest.raises(PeewitError, match="outside"):
        load(str(folder))
    archive.write_bytes(b"damaged" * 500)
    with pytest.raises(PeewitError, match="damaged"):
        load(str(folder))


def test_an_unreadable_picture_leaves_no_folder_behind(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load(str(pictures))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write_shards(splits, tmp_path / "out", 10**6, stop)
    assert not list(tmp_path.iterdir())
