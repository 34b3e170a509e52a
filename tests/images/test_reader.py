from __future__ import annotations

import errno
import io
import struct
import sys
import types
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from peewit.errors import PeewitError
from peewit.images import reader
from peewit.images.reader import PIXEL_LIMIT, SUFFIXES, TooManyPixels, read_picture

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, depth: int, colour: int, rows: bytes = b"") -> bytes:
    """Write a PNG by hand: Pillow can write only some of the modes that it reads."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_rgb_is_read_exactly(kind: str) -> None:
    content = encoded(Image.fromarray(RGB), kind, lossless=True)
    pixels = read_picture(content)
    assert pixels.dtype == np.uint8
    assert (pixels == RGB).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_grey_is_read_exactly(kind: str) -> None:
    pixels = read_picture(encoded(Image.fromarray(GREY), kind))
    assert pixels.shape == (6, 9, 1)
    assert (pixels == GREY[:, :, None]).all()


def test_jpeg_is_read_approximately() -> None:
    smooth = np.dstack([np.add.outer(np.arange(16), np.arange(24)) * 4] * 3).astype(np.uint8)
    pixels = read_picture(encoded(Image.fromarray(smooth), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - smooth).max() <= 4


def test_path_str_and_bytes_give_the_same_pixels(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(Image.fromarray(RGB)))
    assert (read_picture(file) == RGB).all()
    assert (read_picture(str(file)) == RGB).all()
    assert (read_picture(file.read_bytes()) == RGB).all()


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    file = tmp_path / "really_a_png.jpg"
    file.write_bytes(encoded(Image.fromarray(RGB)))
    assert (read_picture(file) == RGB).all()


def test_the_pixels_are_writable() -> None:
    for picture in (Image.fromarray(RGB), Image.fromarray(GREY)):
        read_picture(encoded(picture))[:] = 0


def test_transparency_becomes_white() -> None:
    alpha = np.zeros((6, 9), np.uint8)
    alpha[:, 3:6], alpha[:, 6:] = 128, 255
    pixels = read_picture(encoded(Image.fromarray(np.dstack([RGB, alpha]))))
    assert (pixels[:, :3] == 255).all()
    half = RGB[:, 3:6] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels[:, 3:6] - half).max() <= 0.5 + 1e-9
    assert (pixels[:, 6:] == RGB[:, 6:]).all()


def test_grey_with_transparency_stays_grey() -> None:
    alpha = np.zeros((6, 9), np.uint8)
    alpha[:, 5:] = 255
    pixels = read_picture(encoded(Image.fromarray(np.dstack([GREY, alpha]))))
    assert pixels.shape == (6, 9, 1)
    assert (pixels[:, :5] == 255).all()
    assert (pixels[:, 5:, 0] == GREY[:, 5:]).all()


def test_16_bit_grey_with_transparency() -> None:
    row = b"\0" + b"".join(struct.pack(">HH", 0x4000, alpha) for alpha in (0, 0xFFFF))
    pixels = read_picture(png(2, 1, 16, 4, row))
    assert (pixels[0, 0] == 255).all()
    assert (pixels[0, 1] == 0x40).all()


def test_palette_with_a_transparent_colour() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (2, 0, 4, 4))
    for kind in ("PNG", "GIF"):
        pixels = read_picture(encoded(picture, kind, transparency=0))
        assert (pixels[:, :2] == 255).all(), kind
        assert (pixels[:, 2:] == (200, 100, 50)).all(), kind


def test_palette_with_an_alpha_value_per_colour() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.paste(1, (2, 0, 4, 4))
    pixels = read_picture(encoded(picture, transparency=bytes([51, 255])))
    assert (pixels[:, :2] == 204).all()
    assert (pixels[:, 2:] == (200, 100, 50)).all()


def test_rgb_with_one_transparent_colour() -> None:
    picture = Image.fromarray(np.full((2, 2, 3), 7, np.uint8))
    assert (read_picture(encoded(picture, transparency=(7, 7, 7))) == 255).all()


def test_one_bit_becomes_black_and_white() -> None:
    picture = Image.fromarray(np.eye(5, dtype=np.uint8) * 255).convert("1")
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        assert (read_picture(encoded(picture, kind))[:, :, 0] == np.eye(5) * 255).all(), kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32768, 65278, 65535]], np.uint16)
    pixels = read_picture(encoded(Image.fromarray(values), kind))
    assert pixels.ravel().tolist() == [0, 1, 128, 254, 255]


def test_big_endian_16_bit_grey() -> None:
    picture = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257, 65535))
    assert read_picture(encoded(picture, "TIFF")).ravel().tolist() == [1, 255]


def test_16_bit_rgb() -> None:
    row = b"\0" + struct.pack(">HHH", 0, 0x8000, 0xFFFF)
    assert read_picture(png(1, 1, 16, 2, row)).ravel().tolist() == [0, 128, 255]


def test_float_tiff_from_0_to_1() -> None:
    picture = Image.fromarray(np.array([[0, 0.2, 0.5, 1]], np.float32))
    assert read_picture(encoded(picture, "TIFF")).ravel().tolist() == [0, 51, 128, 255]


@pytest.mark.parametrize("values", [[0, 300], [-1, 1], [0, np.nan], [0, np.inf]])
def test_a_float_tiff_outside_0_to_1_is_refused(values: list[float]) -> None:
    picture = Image.fromarray(np.array([values], np.float32))
    with pytest.raises(PeewitError, match=r"strange\.tif: its pixels range from .* outside 0 to 1"):
        read_picture(encoded(picture, "TIFF"), "strange.tif")


def test_32_bit_integers_beyond_16_bits_are_refused() -> None:
    picture = Image.fromarray(np.array([[0, 70000]], np.int32))
    with pytest.raises(PeewitError, match="outside 0 to 65,535; save it with 8 bits"):
        read_picture(encoded(picture, "TIFF"))


def test_cmyk_becomes_rgb() -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        pixels = read_picture(encoded(picture, kind))
        assert pixels.shape == (8, 8, 3)
        assert (np.abs(pixels.astype(int) - (255, 0, 0)) <= 3).all(), kind


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("#c80000", "#00c800", "#0000c8")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"save_all": True, "append_images": frames[1:]}
        options |= {"lossless": True} if kind == "WEBP" else {}
        pixels = read_picture(encoded(frames[0], kind, **options))
        assert (pixels == (200, 0, 0)).all(), kind


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.transpose(1, 0, 2)),
        (6, np.rot90(RGB, -1)),
        (7, RGB[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(RGB)),
    ],
)
def test_the_exif_orientation_is_applied(orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_picture(encoded(Image.fromarray(RGB), exif=exif))
    assert pixels.shape == upright.shape
    assert (pixels == upright).all()


def test_a_palette_picture_without_a_palette() -> None:
    with pytest.raises(PeewitError, match="the picture is damaged"):
        read_picture(png(1, 1, 8, 3, b"\0\0"))


@pytest.mark.skipif(sys.platform != "linux", reason="libtiff may be hidden in Pillow")
def test_decoders_do_not_write_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    content = encoded(Image.fromarray(RGB), "TIFF", compression="tiff_adobe_deflate")
    with Image.open(io.BytesIO(content)) as picture:
        start = picture.tag_v2[273][0]  # type: ignore[attr-defined]
    with pytest.raises(PeewitError, match="damaged"):
        read_picture(content[: start + 2] + b"\xff" * 8 + content[start + 10 :])
    assert capfd.readouterr().err == ""


def test_damaged_exif_is_ignored() -> None:
    stream = encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(stream).shape == (6, 9, 3)


def test_a_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(PeewitError, match="permission denied; check the file and its permissions"):
        read_picture("there/x.png")


def test_warning_filters_are_restored_in_whatever_order_threads_finish() -> None:
    before = list(warnings.filters)
    first, second = reader._WARNING_FILTER, reader._WARNING_FILTER
    first.__enter__()
    second.__enter__()
    first.__exit__()
    warnings.warn("ignored while the second one reads", UserWarning, stacklevel=1)
    second.__exit__()
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="after both"):
        warnings.warn("after both", UserWarning, stacklevel=1)


def test_no_warnings_are_shown(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    read_picture(encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert not recwarn.list


def test_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.png"
    file.touch()
    with pytest.raises(PeewitError, match=r"cannot read .*empty\.png: it is empty"):
        read_picture(file)


@pytest.mark.parametrize("content", [b"<html><body>404</body></html>", b"\0" * 1000, b"\x89PNG"])
def test_not_a_picture(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "page.png"
    file.write_bytes(content)
    with pytest.raises(PeewitError, match=r"page\.png: it is not a whole picture .*PNG"):
        read_picture(file)


def test_formats_whose_decoders_start_programs_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: Any, **options: Any) -> None:
        pytest.fail("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    for name in ("a.eps", "a.png"):
        (tmp_path / name).write_bytes(postscript)
        with pytest.raises(PeewitError, match="not a whole picture"):
            read_picture(tmp_path / name)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_upright() -> None:
    smooth = np.dstack([np.add.outer(np.arange(16), np.arange(24)) * 4] * 3).astype(np.uint8)
    for orientation, upright in ((1, smooth), (6, np.rot90(smooth, -1))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = read_picture(encoded(Image.fromarray(smooth), "AVIF", quality=95, exif=exif))
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).max() <= 6


def test_avif_without_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with pytest.raises(reader.NotAPicture, match=r"a\.jpg: AVIF needs Pillow 11\.3 .* pip install"):
        read_picture(b"\0\0\0\x1cftypavif" + bytes(100), "a.jpg")


def test_heic_without_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    for brand in (b"heic", b"mif1"):
        with pytest.raises(reader.NotAPicture, match=r"HEIC needs .* install 'peewit\[heif\]'"):
            read_picture(b"\0\0\0\x1cftyp" + brand + bytes(100), "a.jpg")


def test_heic_is_read_by_pillow_heif_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Heic(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            assert self.fp is not None
            self._size, self._mode = (9, 6), "RGB"
            self.info["exif"] = self.fp.read()[16:]
            self.fp = io.BytesIO(RGB.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, 9, 6), 0, "RGB")]

    def register() -> None:
        monkeypatch.setitem(Image.OPEN, "HEIF", (Heic, None))

    exif = Image.Exif()
    exif[0x0112] = 6
    fake = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setattr(reader, "find_spec", lambda name: name == "pillow_heif")
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    content = b"\0\0\0\x10ftypheic\0\0\0\0"
    assert (read_picture(content + exif.tobytes()) == np.rot90(RGB, -1)).all()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"nothing\.png: there is no such file; check the path"):
        read_picture(tmp_path / "nothing.png")
    with pytest.raises(PeewitError, match="it is a folder"):
        read_picture(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_truncated_files(kind: str) -> None:
    whole = encoded(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    for size in (len(whole) // 2, len(whole) // 10, 20):
        with pytest.raises(
            PeewitError, match=r"cannot read cut\.x: (the picture is damaged|it is)"
        ):
            read_picture(whole[:size], "cut.x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_damaged_file_is_a_clean_error(kind: str) -> None:
    random = np.random.default_rng(1)
    options = {"exif": Image.Exif()} if kind in ("JPEG", "PNG") else {}
    whole = np.frombuffer(encoded(Image.fromarray(RGB), kind, **options), np.uint8)
    for _ in range(300):
        content = whole.copy()
        # near the start, where the headers are
        places = random.integers(0, min(len(content), 200), random.integers(1, 8))
        content[places] = random.integers(0, 256, len(places))
        try:
            pixels = read_picture(content.tobytes(), limit=10_000)
        except PeewitError:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


ERRORS = [KeyError, IndexError, ZeroDivisionError, OverflowError, struct.error, zlib.error]
ERRORS += [AssertionError, RecursionError, NotImplementedError, EOFError, StopIteration]
ERRORS += [BufferError, UnicodeDecodeError, DeprecationWarning, Exception]


@pytest.mark.parametrize("error", ERRORS)
def test_every_exception_of_pillow_is_reported_as_damage(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(*arguments: Any) -> None:
        raise error.__new__(error, "inside")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(PeewitError, match=r"cannot read a\.png: the picture is damaged"):
        read_picture(encoded(Image.fromarray(RGB)), "a.png")


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(PeewitError, match="it does not fit into memory"):
        read_picture(encoded(Image.fromarray(RGB)))


def test_a_decompression_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: Any) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for side in (
        8_000,
        12_000,
        30_000,
    ):  # beyond our limit, Pillow's warning limit and its error limit
        assert side**2 > PIXEL_LIMIT
        with pytest.raises(PeewitError, match=r"bomb\.png: it declares .* reduce its size"):
            read_picture(png(side, side, 8, 2), "bomb.png")


def test_the_limit_can_be_set() -> None:
    content = encoded(Image.fromarray(RGB))
    assert read_picture(content, limit=54).shape == (6, 9, 3)
    with pytest.raises(PeewitError, match="it declares 9 x 6 pixels"):
        read_picture(content, limit=53)


def test_a_picture_without_pixels() -> None:
    with pytest.raises(PeewitError, match="cannot read"):
        read_picture(png(0, 5, 8, 2))


def test_suffixes_match_the_supported_formats() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"} <= SUFFIXES
    assert not SUFFIXES & {".eps", ".svg", ".pdf", ".txt"}


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ramp = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (96, 1))
    exif = Image.Exif()
    exif[0x0112] = 3
    monkeypatch.setattr(reader, "LARGE", 1000)
    for options in ({}, {"progressive": True}):
        content = encoded(Image.fromarray(ramp), "JPEG", quality=95, exif=exif, **options)
        whole = read_picture(content, limit=200 * 96)
        assert whole.shape == (96, 200, 1)
        pixels = read_picture(content, limit=5000)
        assert pixels.shape == (12, 25, 1)  # 19,200 pixels at an eighth
        means = whole.reshape(12, 8, 25, 8).mean((1, 3))
        assert np.abs(pixels[:, :, 0] - means).max() <= 2
        # pictures that are not processed one at a time are not scaled
        with pytest.raises(TooManyPixels, match="declares 200 x 96 pixels"):
            read_picture(content, limit=1000)
    # the coefficients of all scans are kept at full size
    monkeypatch.setattr(reader, "LARGEST_COEFFICIENTS", 2 * 200 * 96 - 1)
    with pytest.raises(TooManyPixels, match="declares 200 x 96 pixels"):
        read_picture(content, limit=5000)
    monkeypatch.setattr(reader, "LARGEST_JPEG", 200 * 96 - 1)
    with pytest.raises(TooManyPixels, match="declares 200 x 96 pixels"):
        read_picture(encoded(Image.fromarray(ramp), "JPEG"), limit=5000)


def test_a_jpeg_of_more_pixels_than_pillow_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(reader, "LARGE", 10)
    assert read_picture(encoded(Image.new("L", (40, 16)), "JPEG"), limit=200).shape == (2, 5, 1)


@pytest.mark.parametrize("size", [(40_000, 1), (1, 40_000)])
def test_very_long_sides_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixels, match=r"declares .* pixels"):
        read_picture(encoded(Image.new("RGB", size)))
