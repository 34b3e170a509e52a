"""Archives of class folders: read without unpacking, and refused if they are hostile."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import peewit
from made_sources import files_of, picture, write
from peewit.data import archives, listing_of, members
from peewit.data.listing import TEST, TRAIN, Listing
from peewit.errors import PeewitError

FILES = files_of({"train/a": 3, "train/b": 2, "test/a": 1, "test/b": 1})


def tar_of(files: Mapping[str, bytes], *others: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for other in others:
            tar.addfile(other)
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def gz(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tar_of(files))


KINDS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "deflated.zip": zip_of,
    "stored.zip": lambda files: zip_of(files, zipfile.ZIP_STORED),
    "plain.tar": tar_of,
    "a.tar.gz": gz,
    "a.tar.bz2": lambda files: bz2.compress(tar_of(files)),
    "a.tar.xz": lambda files: lzma.compress(tar_of(files)),
}


def listed(path: Path) -> Listing:
    listing = listing_of(path)
    assert listing is not None
    return listing


def refused(path: Path) -> str:
    with pytest.raises(PeewitError) as caught:
        listing_of(path)
    return str(caught.value)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_archive_lists_what_its_folder_lists(kind: str, tmp_path: Path) -> None:
    files = dict(reversed(FILES.items()))  # archives have any order
    path = tmp_path / kind
    path.write_bytes(KINDS[kind](files))
    folder, archive = listed(write(tmp_path / "folder", FILES)), listed(path)
    assert list(archive.names) == list(folder.names)
    assert archive.class_names == folder.class_names
    assert archive.labels.tolist() == folder.labels.tolist()
    assert archive.parts.tolist() == folder.parts.tolist()
    assert set(archive.parts) == {TRAIN, TEST}
    numbers = np.random.default_rng(0).permutation(len(archive)).tolist()
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(archive.files.read, numbers))
    assert contents == [FILES[archive.names[number]] for number in numbers]
    splits = peewit.load(str(path))
    assert splits.test is not None
    assert (splits.train.images[0] == peewit.load(str(tmp_path / "folder")).train.images[0]).all()


def test_a_folder_around_everything_and_names_of_other_programs(kind: str, tmp_path: Path) -> None:
    files = {f"./mine/{name}": content for name, content in FILES.items()}
    files |= {"__MACOSX/mine/a/._0.png": b"x", "mine/.DS_Store": b"x", "mine/notes.txt": b"x"}
    path = tmp_path / kind
    path.write_bytes(KINDS[kind](files))
    listing = listed(path)
    assert sorted(listing.names) == sorted(f"mine/{name}" for name in FILES)
    assert listing.notes[0].endswith("is left out: mine/notes.txt")


def test_a_large_compressed_archive_is_read_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar.gz"
    files = dict(reversed(files_of({"a": 20, "b": 20}).items()))
    path.write_bytes(gz(files))
    assert not listed(path).files.sequential
    monkeypatch.setattr(members, "KEPT", 300)
    listing = listed(path)
    assert listing.files.sequential
    assert list(listing.names) == list(files)
    for numbers in (range(40), [39, 0, 5, 4, 3]):  # back is slow, but not wrong
        assert all(listing.files.read(n) == files[listing.names[n]] for n in numbers)


def test_stamps_change_with_the_content(tmp_path: Path) -> None:
    changed = FILES | {"train/a/0.png": picture(200)}
    assert len(changed["train/a/0.png"]) == len(FILES["train/a/0.png"])
    for kind, make in KINDS.items():
        path = tmp_path / kind
        path.write_bytes(make(FILES))
        os.utime(path, ns=(1, 1))
        before = listed(path)
        path.write_bytes(make(changed))
        os.utime(path, ns=(2, 2))
        after = listed(path)
        row = list(after.names).index("train/a/0.png")
        assert (before.stamps[row] != after.stamps[row]).any(), kind
        if path.stat().st_size:
            with pytest.raises(PeewitError, match="changed since it was listed"):
                before.files.read(row)


@pytest.mark.parametrize("name", ["../a/x.png", "/a/x.png", "a/../../x.png", "C:/a/x.png"])
def test_names_that_point_outside(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(KINDS[kind](FILES | {name: b"x"}))
    assert "points outside the archive's folder" in refused(path)


def test_folders_within_folders_without_end(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(KINDS[kind](FILES | {"a/" * 3000 + "x.png": b"x"}))
    assert "more than 100 folders in each other" in refused(path)


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    info = tarfile.TarInfo("train/a/0.png")
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(FILES, info))  # the later one is empty
    listing = listed(path)
    assert len(listing) == len(FILES)
    assert listing.files.read(list(listing.names).index("train/a/0.png")) == b""
    assert any("another of the same name replaces" in note for note in listing.notes)


def test_links_and_devices(tmp_path: Path) -> None:
    others = []
    for name, kind, target in (
        ("train/a/hard.png", tarfile.LNKTYPE, "train/a/1.png"),
        ("train/a/soft.png", tarfile.SYMTYPE, "/etc/passwd"),
        ("train/a/gone.png", tarfile.LNKTYPE, "train/a/none.png"),
        ("train/a/pipe.png", tarfile.FIFOTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        others.append(info)
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(FILES, *others))
    listing = listed(path)
    names = list(listing.names)
    assert set(names) - set(FILES) == {"train/a/hard.png"}
    assert listing.files.read(names.index("train/a/hard.png")) == FILES["train/a/1.png"]
    assert any(note.startswith("2 links are left out") for note in listing.notes)
    assert any(note.startswith("1 special file is left out") for note in listing.notes)


def test_a_link_in_a_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(FILES))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/a/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    listing = listed(path)
    assert set(listing.names) == set(FILES)
    assert listing.notes[0] == "1 link is left out: train/a/link.png"


def test_damage_and_truncation(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    content = KINDS[kind](FILES | {"train/a/large.bmp": os.urandom(200_000)})
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(PeewitError, match=r"damaged|incomplete|truncated|is a|compressed"):
        peewit.load(str(path))


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    content = bytearray(tar_of(FILES))
    header = content.index(b"test/b/0.png")
    content[header] ^= 1
    path.write_bytes(content)
    assert "it is damaged or incomplete" in refused(path)


def test_a_damaged_member_is_said_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(zip_of(FILES, zipfile.ZIP_STORED))
    content[content.index(b"IDAT")] ^= 1
    path.write_bytes(content)
    listing = listed(path)
    with pytest.raises(PeewitError, match=r"cannot read train/a/0\.png in .*: it is damaged"):
        listing.files.read(list(listing.names).index("train/a/0.png"))


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(zip_of(FILES))
    for at in range(len(content)):  # set the flag in the central directory
        if content[at : at + 4] == b"PK\1\2":
            content[at + 8] |= 1
    path.write_bytes(content)
    assert "it is encrypted; extract it and use the folder instead" in refused(path)


def test_a_rare_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(FILES, zipfile.ZIP_BZIP2))
    assert "it is compressed with bzip2; extract it" in refused(path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gz(FILES | {"train/a/bomb.bmp": bytes(3_000_000)}))
    monkeypatch.setattr(archives, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(archives, "MOST_TIMES", 10)
    assert "it decompresses to more than 1,000,000 bytes" in refused(path)
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(FILES | {"train/a/bomb.bmp": bytes(3_000_000)}))
    listing = listed(path)
    assert set(listing.names) == set(FILES)
    assert "of more than 1,000,000 bytes is left out: train/a/bomb.bmp" in listing.notes[0]


def test_a_zip_member_that_is_larger_than_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(zip_of(FILES | {"train/a/9.bmp": bytes(100_000)}))
    entry = content.rindex(b"train/a/9.bmp") - 46  # in the central directory
    content[entry + 24 : entry + 28] = (50).to_bytes(4, "little")
    path.write_bytes(content)
    listing = listed(path)
    with pytest.raises(PeewitError, match="it is damaged"):
        listing.files.read(list(listing.names).index("train/a/9.bmp"))


def test_an_archive_without_pictures_is_not_listed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(KINDS[kind]({"a/notes.txt": b"x", "b/notes.txt": b"x"}))
    assert listing_of(path) is None


def test_one_class_folder(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    path.write_bytes(KINDS[kind](files_of({"mine/a": 2})))
    assert "has one class, a: a classifier needs at least two" in refused(path)
