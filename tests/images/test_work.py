"""Files that demand too much of a decoder are refused before it starts."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from peewit.errors import PeewitError
from peewit.images import reader, work
from peewit.images.reader import read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, kind, **options)
    return stream.getvalue()


def refused(content: bytes, why: str) -> None:
    with pytest.raises(PeewitError, match=why) as caught:
        read_picture(content)
    assert not isinstance(caught.value, reader.TooManyPixels)


def repeated_scan(times: int) -> bytes:
    """Return a progressive JPEG whose last scan is there ``times`` more."""
    content = encoded("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * times + b"\xff\xd9"


def tiff(tags: dict[int, tuple[int, int, int]], values: bytes, big: bool = False) -> bytes:
    """Return a TIFF file of one grey pixel with more tags: {number: (type, count, value)}."""
    ours = {256: (4, 1, 1), 257: (4, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    ours |= {273: (4, 1, 0), 278: (4, 1, 1), 279: (4, 1, 1)} | tags
    entry = "<HHQQ" if big else "<HHLL"
    entries = b"".join(struct.pack(entry, key, *ours[key]) for key in sorted(ours))
    if big:
        start = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(ours))
    else:
        start = b"II*\0\x08\0\0\0" + struct.pack("<H", len(ours))
    return start + entries + bytes(8) + values


def test_jpegs_with_too_many_scans() -> None:
    assert read_picture(repeated_scan(50)).shape == (48, 64, 3)
    refused(repeated_scan(work.MOST_SCANS), "it has more than 100 progressive scans")


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_scans_are_counted_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_COUNTED", block)
    scan = b"\xff\xda\0\2"
    work.check_work(io.BytesIO(b"\xff\xd8" + scan * work.MOST_SCANS))
    for odd in (b"", b"\0"):
        many = b"\xff\xd8" + odd + scan * (work.MOST_SCANS + 1)
        with pytest.raises(work.TooMuchWork, match="progressive scans"):
            work.check_work(io.BytesIO(many))


def test_scans_of_previews_and_videos_do_not_count() -> None:
    content = encoded("JPEG", progressive=True)
    preview = b"\xff\xe2" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    content = content[:2] + preview + content[2:] + b"\xff\xda" * 200
    assert (read_picture(content) == read_picture(encoded("JPEG", progressive=True))).all()


def test_markers_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MOST_MARKERS", 1000)
    content = encoded("JPEG")
    comments = b"\xff\xfe\0\4\xff\xda" * 2000
    refused(content[:-2] + comments + content[-2:], "it consists of too many parts")


@pytest.mark.parametrize("big", [False, True])
def test_tiffs_with_too_many_tiles(big: bool) -> None:
    many = work.MOST_TILES + 1
    tags = {322: (4, 1, 1), 323: (4, 1, 1), 324: (4, many, 300)}
    refused(tiff(tags, bytes(4 * many), big), "it has 100,001 tiles")


def test_tiffs_with_huge_tiles() -> None:
    tags = {322: (4, 1, 20_000), 323: (4, 1, 20_000), 324: (4, 1, 8)}
    refused(tiff(tags, b""), "it has tiles of 20,000 x 20,000 pixels")


def test_tiffs_with_large_tables() -> None:
    many = work.MOST_TILES + 1
    refused(tiff({320: (3, many, 300)}, bytes(2 * many)), "100,001 tiles, strips or values")


def overlapping(tags: int, size: int) -> bytes:
    """Return EXIF data with many tags that share one large value."""
    return tiff(dict.fromkeys(range(40000, 40000 + tags), (7, size, 200)), bytes(size))


def test_tags_with_overlapping_values() -> None:
    content = overlapping(300, 60_000)
    refused(content, "the values of its tags overlap")
    for kind in ("JPEG", "PNG", "WEBP"):
        refused(encoded(kind, exif=b"Exif\0\0" + content), "the values of its tags overlap")
    refused(overlapping(work.MOST_TAGS, 100), "it has 4,104 tags")


def test_overlapping_values_in_avif() -> None:
    # Pillow parses this EXIF data when it opens the file
    content = bytes(4) + b"ftypavif" + bytes(100) + overlapping(300, 60_000)
    refused(content, "the values of its tags overlap")


def test_overlapping_values_in_text() -> None:
    text = "\nexif\n" + "8".rjust(8) + "\n" + overlapping(300, 60_000).hex()
    information = PngInfo()
    information.add_text("Raw profile type exif", text, zip=True)
    refused(encoded("PNG", pnginfo=information), "the values of its tags overlap")


def test_files_of_many_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_READS", 20_000)
    many = 10_001
    empty = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    content = encoded("PNG")
    end = content.index(b"IEND") - 4
    refused(content[:end] + empty * many + content[end:], "it consists of too many parts")
    content = encoded("JPEG")
    refused(content[:2] + b"\xff\xfe\0\2" * many + content[2:], "too many parts")
    content = encoded("GIF")
    start = 13 + 3 * 256
    refused(content[:start] + b"!\xfe\1x\0" * many + content[start:], "too many parts")


def test_ordinary_files_of_many_parts_are_read() -> None:
    content = encoded("PNG", compress_level=0)
    start = content.index(b"IDAT") - 4
    compressed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE), 0)
    parts = [b"IDAT" + compressed[at : at + 16] for at in range(0, len(compressed), 16)]
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    ]
    content = content[:start] + b"".join(chunks) + content[-12:]
    assert (read_picture(content) == NOISE).all()


@pytest.mark.parametrize("start", [b"P2 60 40 255\n", b"P5 60 40 100\n"])
def test_formats_that_are_decoded_in_python_have_a_lower_limit(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = start + b"7 " * 2400
    assert read_picture(content).shape == (40, 60, 1)
    monkeypatch.setattr(reader, "LARGEST_SLOW", 2399)
    with pytest.raises(reader.TooManyPixels, match="more than 2,399 pixels take long"):
        read_picture(content)
    assert read_picture(b"P5 60 40 255\n" + bytes(2400)).shape == (40, 60, 1)


def test_tiffs_of_ordinary_programs_pass() -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[270] = "a description " * 5000
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}):
        assert read_picture(encoded("TIFF", tiffinfo=info, **options)).shape == (48, 64, 3)
    assert read_picture(encoded("TIFF", big_tiff=True, tiffinfo=info)).shape == (48, 64, 3)
