from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from peewit.data.cifar.archive import MAX_MEMBERS, MAX_SIZE, BadArchiveError, members

WANTED = {"one": 100, "two": 3_000_000}


def tar_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes], format: int = 1) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue(), 1))
    return path


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tar.gz"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_wanted_files_are_read_in_order_and_others_skipped(path: Path, format: int) -> None:
    big = bytes(range(256)) * 10_000
    tar_of(
        path,
        entry("d", type=tarfile.DIRTYPE),
        entry("d/two", big),
        entry("d/readme.html", b"x" * 500_000),
        entry("d/" + "long" * 60 + "/one" if format != tarfile.USTAR_FORMAT else "d/one", b"1"),
        format=format,
    )
    assert list(members(path, WANTED)) == [("two", big), ("one", b"1")]


@pytest.mark.parametrize(
    "name", ["../one", "d/../../one", "/etc/one", "C:\\one", "C:one", "..\\one", "\\\\host\\one"]
)
def test_names_that_point_outside_the_folder_are_refused(path: Path, name: str) -> None:
    tar_of(path, entry(name, b"1"))
    with pytest.raises(BadArchiveError, match="outside the archive's folder"):
        list(members(path, WANTED))


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_links_and_devices_are_refused(path: Path, kind: bytes, word: str) -> None:
    tar_of(path, entry("d/one", type=kind, linkname="/etc/passwd"))
    with pytest.raises(BadArchiveError, match=word) as caught:
        list(members(path, WANTED))
    assert str(path) in str(caught.value)


def test_a_file_larger_than_its_format_is_refused(path: Path) -> None:
    tar_of(path, entry("d/one", b"1" * 101))
    with pytest.raises(BadArchiveError, match=r"d/one' has 101 bytes, .* at most 100"):
        list(members(path, WANTED))


def test_the_same_file_twice_is_refused(path: Path) -> None:
    tar_of(path, entry("d/one", b"1"), entry("e/one", b"2"))
    with pytest.raises(BadArchiveError, match="twice"):
        list(members(path, WANTED))


def test_too_many_files_are_refused(path: Path) -> None:
    tar_of(path, *(entry(f"d/{number}") for number in range(MAX_MEMBERS + 1)))
    with pytest.raises(BadArchiveError, match="more than 1000 files"):
        list(members(path, WANTED))


def pax(records: dict[str, str], size: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    content = b"".join(
        b"%d %s=%s\n" % (len(key) + len(value) + 5, key.encode(), value.encode())
        for key, value in records.items()
    )
    return entry("pax", content + b"0\n" * size, type=tarfile.XHDTYPE)


@pytest.mark.parametrize(
    "bomb",
    [
        [entry("d/unwanted", bytes(200_000_000))],
        [pax({}, 60_000_000)],
        [entry("././@LongLink", b"x" * 100_000_000, type=tarfile.GNUTYPE_LONGNAME)],
    ],
    ids=["member", "pax header", "long name"],
)
def test_bombs_are_refused_before_memory_is_allocated(
    path: Path, bomb: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    tar_of(path, *bomb)
    assert path.stat().st_size < 2_000_000
    bomb.clear()
    tracemalloc.start()
    try:
        with pytest.raises(BadArchiveError, match="decompresses to more"):
            list(members(path, WANTED))
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_several_gzip_members_are_one_archive(path: Path) -> None:
    content = {"one": b"1" * 90, "two": random.Random(0).randbytes(9_000)}
    tar_of(path, *(entry(f"d/{name}", part) for name, part in content.items()))
    with gzip.open(path, "rb") as file:
        tar = file.read()
    for size in (1, 700, 5_000):
        parts = [gzip.compress(tar[at : at + size * 100]) for at in range(0, len(tar), size * 100)]
        path.write_bytes(b"".join(parts) + bytes(600))
        assert dict(members(path, WANTED)) == content
    path.write_bytes(gzip.compress(tar) + gzip.compress(bytes(50_000_000)))
    with pytest.raises(BadArchiveError, match="decompresses to more"):
        list(members(path, WANTED))
    path.write_bytes(b"".join(parts)[:-20])
    with pytest.raises(BadArchiveError, match="truncated"):
        list(members(path, WANTED))


def test_a_bomb_after_the_tar_is_refused(path: Path) -> None:
    tar_of(path, entry("d/one", b"1"))
    with gzip.open(path, "rb") as file:
        content = file.read()
    path.write_bytes(gzip.compress(content + bytes(50_000_000), 1))
    with pytest.raises(BadArchiveError, match="decompresses to more"):
        list(members(path, WANTED))


def test_every_truncation_is_detected(path: Path) -> None:
    tar_of(path, entry("d/one", b"1" * 90), entry("d/two", bytes(range(256)) * 40))
    whole = path.read_bytes()
    for length in range(2, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BadArchiveError, match="truncated"):
            list(members(path, WANTED))


def test_damage_is_detected(path: Path) -> None:
    tar_of(path, entry("d/two", random.Random(0).randbytes(20_000)))
    whole = bytearray(path.read_bytes())
    for at in range(10, len(whole), 311):
        damaged = whole.copy()
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(BadArchiveError):
            list(members(path, WANTED))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>503", "it is a web page"),
        (b"<html><body>moved", "it is a web page"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"anything", "it is not a .tar.gz archive"),
        (gzip.compress(b"<html>"), "it is a compressed web page"),
        (gzip.compress(b"x" * 5000), "it is a single compressed file"),
        (gzip.compress(b""), "not a valid tar"),
    ],
)
def test_the_error_says_what_a_file_is_instead_of_an_archive(
    path: Path, content: bytes, word: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(BadArchiveError, match=word) as caught:
        list(members(path, WANTED))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(BadArchiveError, match=r"a\.tar\.gz: no such file"):
        list(members(path, WANTED))


def test_nothing_is_written(path: Path) -> None:
    tar_of(path, entry("d/one", b"1"))
    before = sorted(path.parent.rglob("*"))
    list(members(path, WANTED))
    assert sorted(path.parent.rglob("*")) == before


def test_folders_devices_and_huge_files_are_not_read(tmp_path: Path, path: Path) -> None:
    for other in (tmp_path, Path(os.devnull)):
        with pytest.raises(BadArchiveError, match="not a regular file"):
            list(members(other, WANTED))
    with path.open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    with pytest.raises(BadArchiveError, match="has 1,073,741,825 bytes"):
        list(members(path, WANTED))


def test_random_damage_in_the_headers_is_refused_or_harmless(path: Path) -> None:
    rng = random.Random(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("d/one", "d/" + "n" * 200 + "/two", "d/\xe9"):
            info, content = entry(name, b"1" * 90)
            info.pax_headers = {"GNU.sparse.major": "1"} if rng.random() < 0.3 else {}
            tar.addfile(info, io.BytesIO(content))
    whole = buffer.getvalue()
    headers = [at for at in range(0, len(whole), 512) if any(whole[at : at + 512])]
    for _ in range(600):
        damaged = bytearray(whole)
        at = rng.choice(headers)
        for _ in range(rng.randint(1, 3)):
            damaged[at + rng.randrange(512)] = rng.randrange(256)
        # a correct checksum, so that tarfile does not stop there
        damaged[at + 148 : at + 156] = b" " * 8
        damaged[at + 148 : at + 156] = b"%06o\0 " % sum(damaged[at : at + 512])
        path.write_bytes(gzip.compress(bytes(damaged), 1))
        # any other exception fails the test
        with suppress(BadArchiveError):
            assert all(len(content) <= 90 for _, content in members(path, WANTED))


def test_damaged_extended_headers_are_refused(path: Path) -> None:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.map": "x", "GNU.sparse.size": "1"}
        tar.addfile(info)
    with pytest.raises(BadArchiveError, match="not a valid tar archive"):
        list(members(path, WANTED))
