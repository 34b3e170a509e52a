"""The examples in docs/exports.md answer as ``peewit predict`` does, for every kind of picture."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pages
import peewit
from made_runs import make_run
from peewit.export import job
from peewit.images.reader import read_picture
from peewit.runs.run import Run

PAGE = pages.ROOT / "docs" / "exports.md"
MODULE, *EXAMPLES = [text for language, text in pages.blocks(PAGE) if language == "python"]


def example(package: str) -> str:
    return next(text for text in EXAMPLES if f"import {package}\n" in text)


def pictures(folder: Path) -> Iterator[Path]:
    """Yield a picture of each kind, none of which looks the same if its kind is ignored."""
    random = np.random.default_rng(0)
    # dark on the left, so that the orientation matters
    shade = np.linspace(0, 1, 48)[None, :, None] * np.linspace(0.5, 1, 36)[:, None, None]
    rgb = np.uint8(shade * random.integers(200, 256, (36, 48, 3)))
    alpha = np.uint8(random.integers(0, 256, (36, 48)))
    picture = Image.fromarray(rgb)
    grey = picture.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    picture.save(folder / "rotated.jpg", exif=exif)
    yield folder / "rotated.jpg"
    exif[0x0112] = 3
    grey.save(folder / "upside-down.png", exif=exif)
    yield folder / "upside-down.png"
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    yield folder / "cmyk.jpg"
    for name, mode in (("rgba", "RGBA"), ("grey-alpha", "LA")):
        wide = picture.convert(mode)
        wide.putalpha(Image.fromarray(alpha))
        wide.save(folder / f"{name}.png")
        yield folder / f"{name}.png"
    picture.quantize(16).save(folder / "palette.png", transparency=3)
    yield folder / "palette.png"
    picture.save(folder / "colour-key.png", transparency=tuple(map(int, rgb[20, 20])))
    yield folder / "colour-key.png"
    for name in ("deep.png", "deep.tiff"):
        deep = np.asarray(grey, np.uint16) * 257 + np.uint16(random.integers(0, 200, (36, 48)))
        Image.fromarray(deep).save(folder / name)
        yield folder / name
    grey.convert("1").save(folder / "bilevel.png")
    yield folder / "bilevel.png"
    picture.save(folder / "plain.png")
    yield folder / "plain.png"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function of the page, which its examples can import."""
    module = ModuleType("pictures")
    exec(MODULE, vars(module))
    monkeypatch.setitem(sys.modules, "pictures", module)
    return module.read


@pytest.fixture(scope="module", params=["stretch", "crop"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its exports."""
    made = make_run(tmp_path_factory.mktemp("place") / "runs" / "NAME", fit=request.param)
    for kind in ("onnx", "openvino", "torch"):
        job.export(made, kind)
    return made


def test_pixels_are_those_of_peewit(read: Any, tmp_path: Path) -> None:
    for file in pictures(tmp_path):
        pixels = read(file)
        assert pixels.shape[2] == 3
        expected = np.broadcast_to(read_picture(file), pixels.shape)
        np.testing.assert_array_equal(pixels, expected, err_msg=file.name)


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "torch"])
def test_examples_answer_as_peewit_does(
    package: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(run.path.parent.parent)
    # all others differ in nothing but their pixels, which the test above compares
    files = [file for file in pictures(tmp_path) if file.name in ("rotated.jpg", "rgba.png")]
    for file, prediction in zip(files, peewit.predict(run, files), strict=True):
        exec(example(package).replace('"photo.jpg"', repr(str(file))), {})
        said = capsys.readouterr().out
        best, probability = prediction.labels[0]
        # PyTorch prints four digits
        assert max(map(float, re.findall(r"0\.\d+", said))) == pytest.approx(probability, abs=1e-4)
        assert package != "onnxruntime" or said.startswith(best)
