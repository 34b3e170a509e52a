"""Pictures are decoded to the size in which they are used, whatever their format and shape."""

from __future__ import annotations

import builtins
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from peewit.errors import PeewitError
from peewit.images import reader, scaled
from peewit.images.fitting import PADDING, fit_picture
from peewit.images.reader import TooManyPixels, read_picture
from peewit.images.scaled import PictureInfo, probe, read_sized

Pixels = npt.NDArray[np.uint8]


@cache
def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return coloured shapes of all sizes with blurred edges, different in every corner."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    layers = [
        Image.fromarray(noise[: max(2, height // part), : max(2, width // part)])
        .resize((width, height), Image.Resampling.BICUBIC)
        .filter(ImageFilter.GaussianBlur(2))
        for part in (200, 60, 15)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.3)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(turned: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turned
    return exif


def difference(a: Pixels, b: Pixels) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


def from_full_size(content: bytes, height: int, width: int, fit: Any = "crop") -> Pixels:
    """Return what `read_sized` should, from the picture at its full size."""
    pixels = read_picture(content)
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    return np.array(fit_picture(picture.convert("RGB"), height, width, fit))


@pytest.fixture(params=["pillow", "simplejpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with and without simplejpeg."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    scaled._simplejpeg.cache_clear()
    yield request.param
    scaled._simplejpeg.cache_clear()


OPTIONS: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 90, "subsampling": 0},
    {"quality": 90, "progressive": True},
]


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("options", OPTIONS, ids=["4:2:0", "4:4:4", "progressive"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_jpeg_decoded_at_a_reduced_scale_looks_the_same(
    fit: str, options: dict[str, Any]
) -> None:
    # 1,003 and 750 are not multiples of 8: the last column at 1/8 is only partly in the picture
    content = encoded(photograph(1003, 750), **options)
    for side in (24, 64, 130, 400):
        pixels = read_sized(content, height=side, width=side, fit=fit)
        assert pixels.dtype == np.uint8
        assert difference(pixels, from_full_size(content, side, side, fit)) < 1, side


def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list to which the size of every JPEG that Pillow decodes is added."""
    sizes = []
    load = reader.Jpeg.load

    def noted(picture: reader.Jpeg) -> Any:
        if picture.tile:  # not decoded yet
            sizes.append(picture.size)
        return load(picture)

    monkeypatch.setattr(reader.Jpeg, "load", noted)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    scaled._simplejpeg.cache_clear()
    return sizes


def test_at_least_two_pixels_are_decoded_for_each_of_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = decoded_sizes(monkeypatch)
    content = encoded(Image.new("RGB", (1600, 800)))
    for side, fit in ((50, "crop"), (51, "crop"), (51, "pad"), (100, "crop"), (300, "crop")):
        read_sized(content, height=side, width=side, fit=fit)
    scaled._simplejpeg.cache_clear()
    assert sizes == [(200, 100), (400, 200), (200, 100), (400, 200), (1600, 800)]


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("size", [(401, 203), (203, 405)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_exif_orientation_is_applied_before_fitting(
    fit: str, size: tuple[int, int], turned: int
) -> None:
    picture = photograph(*size)
    for kind in ("JPEG", "PNG"):
        content = encoded(picture, kind, exif=with_orientation(turned), quality=90)
        for height, width in ((20, 20), (24, 36)):
            pixels = read_sized(content, height=height, width=width, fit=fit)
            assert difference(pixels, from_full_size(content, height, width, fit)) < 1


def test_a_png_whose_orientation_follows_its_pixels() -> None:
    content = encoded(photograph(60, 40), "PNG", exif=with_orientation(6))
    at = content.index(b"eXIf") - 4
    length = 12 + struct.unpack_from(">I", content, at)[0]
    end = content.index(b"IEND") - 4
    moved = content[:at] + content[at + length : end] + content[at : at + length] + content[end:]
    pixels = read_sized(moved, height=20, width=20)
    assert (pixels == read_sized(content, height=20, width=20)).all()
    assert (pixels != read_sized(encoded(photograph(60, 40), "PNG"), height=20, width=20)).any()


MODES = {
    "grey": ("L", {}),
    "one bit": ("1", {}),
    "palette": ("P", {}),
    "grey with alpha": ("LA", {}),
    "alpha": ("RGBA", {}),
    "transparent colour": ("P", {"transparency": 0}),
    "16 bits": ("I;16", {}),
}


@pytest.mark.parametrize(("mode", "options"), MODES.values(), ids=MODES)
def test_modes_of_png(mode: str, options: dict[str, Any]) -> None:
    picture = photograph(90, 60)
    if mode == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(grey)
    elif mode.endswith("A"):
        picture = picture.convert(mode)
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    else:
        picture = picture.convert(mode)
    content = encoded(picture, "PNG", **options)
    expected = from_full_size(content, 30, 30)
    assert difference(read_sized(content, height=30, width=30), expected) < 0.01
    grey = np.array(Image.fromarray(expected).convert("L"))[:, :, None]
    assert difference(read_sized(content, height=30, width=30, channels=1), grey) < 1


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_modes_of_jpeg(mode: str) -> None:
    content = encoded(photograph(400, 300).convert(mode), quality=90)
    pixels = read_sized(content, height=32, width=32)
    assert difference(pixels, from_full_size(content, 32, 32)) < 1
    assert read_sized(content, height=32, width=32, channels=1).shape == (32, 32, 1)


def test_both_decoders_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    contents = [encoded(photograph(321, 243), **options) for options in OPTIONS]
    contents.append(encoded(photograph(321, 243).convert("L")))
    contents.append(encoded(photograph(1, 1)))
    sizes = [(16, 16), (60, 40), (200, 200)]
    first = [read_sized(content, height=h, width=w) for content in contents for h, w in sizes]
    monkeypatch.setattr(scaled, "_simplejpeg", lambda: None)
    second = [read_sized(content, height=h, width=w) for content in contents for h, w in sizes]
    # both are libjpeg-turbo; another version could round differently
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(first, second, strict=True)) <= 1


@pytest.mark.usefixtures("decoder")
def test_small_pictures_are_enlarged() -> None:
    content = encoded(Image.new("RGB", (1, 1), (200, 100, 50)), quality=95)
    pixels = read_sized(content, height=3, width=5)
    assert pixels.shape == (3, 5, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (20_000, 7), (3, 2_000)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_extremely_thin_pictures(kind: str, size: tuple[int, int], fit: str) -> None:
    content = encoded(Image.new("RGB", size, (255, 255, 255)), kind)
    pixels = read_sized(content, height=32, width=24, fit=fit)
    assert pixels.shape == (32, 24, 3)
    assert (pixels == 255).all() == (fit != "pad")
    if fit == "pad":
        assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == PADDING).all()


def test_the_result_can_be_changed() -> None:
    read_sized(encoded(photograph(40, 40)), height=8, width=8)[:] = 0


def test_the_pixels_beyond_the_crop_have_no_influence() -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 20:80] = 255
    assert (read_sized(encoded(Image.fromarray(pixels), "PNG"), height=9, width=9) == 255).all()


@pytest.mark.usefixtures("decoder")
def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole = encoded(photograph(300, 200))
    for content, why in (
        (whole[: len(whole) // 2], "the picture is damaged or incomplete"),
        (b"", "it is empty"),
        (b"<html>", "it is not a whole picture"),
    ):
        with pytest.raises(PeewitError, match=rf"cannot read a/b\.jpg: {why}"):
            read_sized(content, "a/b.jpg", height=32, width=32)
    with pytest.raises(PeewitError, match=r"none\.jpg: there is no such file"):
        read_sized(tmp_path / "none.jpg", height=32, width=32)


@pytest.mark.usefixtures("decoder")
def test_damage_that_pillow_tolerates() -> None:
    content = encoded(photograph(300, 200), quality=90)
    at = content.index(b"\xff\xda")
    # bytes before a marker, which libjpeg skips with a warning
    odd = content[:at] + b"\0\0\0" + content[at:]
    pixels = read_sized(odd, height=32, width=32)
    assert (pixels == read_sized(content, height=32, width=32)).all()


@pytest.mark.usefixtures("decoder")
def test_every_damaged_jpeg_is_pixels_or_a_clean_error() -> None:
    random = np.random.default_rng(1)
    whole = np.frombuffer(encoded(photograph(90, 60), exif=with_orientation(6)), np.uint8)
    for _ in range(300):
        content = whole.copy()
        places = random.integers(0, len(content), random.integers(1, 8))
        content[places] = random.integers(0, 256, len(places))
        try:
            assert read_sized(content.tobytes(), height=8, width=8).shape == (8, 8, 3)
        except PeewitError:
            continue


def bomb(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + bytes(4)


@pytest.mark.parametrize("size", [(8_000, 8_000), (12_000, 12_000), (31_000, 1)])
def test_bombs_are_refused_before_decoding(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(TooManyPixels, match=r"bomb\.png: it declares .* reduce its size"):
        read_sized(bomb(*size), "bomb.png", height=32, width=32)


def test_jpegs_beyond_the_limit_are_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = decoded_sizes(monkeypatch)
    monkeypatch.setattr(scaled, "LARGE", 1_000)
    content = encoded(photograph(160, 80), progressive=True)
    assert read_sized(content, height=150, width=150, limit=10_000).shape == (150, 150, 3)
    monkeypatch.setattr(reader, "LARGEST_JPEG", 12_000)
    with pytest.raises(TooManyPixels, match="declares 160 x 80 pixels"):
        read_sized(content, height=150, width=150, limit=10_000)
    scaled._simplejpeg.cache_clear()
    assert sizes == [(40, 20)]


def test_threads_take_turns_with_pictures_that_need_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[str] = []

    class Turn:
        def __enter__(self) -> None:
            taken.append("turn")

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(scaled, "ONE_LARGE", Turn())
    monkeypatch.setattr(scaled, "MOST_SHARED", 4 * 64 * 64)
    square = photograph(64, 64)
    for content, turns in (
        (encoded(square, "PNG"), 0),
        (encoded(square.convert("P"), "PNG"), 1),
        (encoded(photograph(65, 64), "PNG"), 1),
        (encoded(square, "WEBP"), 1),
        (encoded(photograph(400, 400)), 0),  # at an eighth: 50 x 50
        # the coefficients of all scans are kept at full size
        (encoded(photograph(400, 400), progressive=True), 1),
    ):
        taken.clear()
        read_sized(content, height=8, width=8)
        assert len(taken) == turns


def test_probing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it was decoded"))
    turned = encoded(photograph(90, 60).convert("L"), exif=with_orientation(6))
    assert probe(turned) == PictureInfo(60, 90, "L", "JPEG", 6)
    assert probe(encoded(photograph(90, 60), "PNG")) == PictureInfo(90, 60, "RGB", "PNG", 1)
    mirrored = encoded(photograph(90, 60), "PNG", exif=with_orientation(2))
    assert probe(mirrored).orientation == 2
    # some cameras write 0
    assert probe(encoded(photograph(90, 60), exif=with_orientation(0))).orientation == 1
    file = tmp_path / "a.gif"
    file.write_bytes(encoded(Image.new("P", (7, 5)), "GIF"))
    assert probe(file) == PictureInfo(7, 5, "P", "GIF", 1)
    assert probe(bomb(9_000, 9_000)).width == 9_000
    with pytest.raises(PeewitError, match="page: it is not a whole picture"):
        probe(b"<html>", "page")


def test_nothing_but_pillow_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "simplejpeg":
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    scaled._simplejpeg.cache_clear()
    try:
        assert read_sized(encoded(photograph(90, 60)), height=8, width=8).shape == (8, 8, 3)
    finally:
        scaled._simplejpeg.cache_clear()
