"""``peewit reproduce``: a run is trained again from its own record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from made_pictures import folder_of_pictures
from peewit.__main__ import main
from peewit.runs import folder as runfolder
from peewit.runs.repetition import compare
from peewit.runs.run import Run
from peewit.training import checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("pictures") / "made", 8, size=(64, 80))


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of a network from scratch."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = ["--recipe", "fast", "--model", "fast-xs", "--epochs", "2", "--image-size", "16"]
    assert main(["train", str(pictures), *options, "--threads", "1", "--out", str(out)]) == 0
    return out


def reproduced(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = main(["reproduce", str(run), "--json"])
    shown = capsys.readouterr()
    return code, json.loads(shown.out) if shown.out else {}, shown.err


def test_the_same_run_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in run.iterdir() if file.is_file()}
    code, found, _ = reproduced(run, capsys)
    assert (code, found["identical"], found["largest_difference"]) == (0, True, 0.0)
    assert (found["history"], found["metrics"], found["environment"]) == ([], [], {})
    assert {file: file.read_bytes() for file in run.iterdir() if file.is_file()} == before


def test_what_differs_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    weights = Run.open(other).model().state_dict()
    weights["head.weight"][0, 0] += 0.5
    checkpoint.write_tensors(other / runfolder.WEIGHTS, weights, {})
    facts = json.loads((other / runfolder.FACTS).read_text())
    facts["environment"]["torch"] = "1.0"
    (other / runfolder.FACTS).write_text(json.dumps(facts))
    code, found, error = reproduced(other, capsys)
    assert (code, found["identical"]) == (1, False)
    assert found["largest_difference"] == pytest.approx(0.5)
    assert found["environment"] == {"torch": ["1.0", torch.__version__]}
    assert "torch was 1.0" in error
    capsys.readouterr()
    assert main(["reproduce", str(other)]) == 1
    assert "5.0e-01" in capsys.readouterr().out


def test_runs_that_cannot_be_repeated(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = shutil.copytree(pictures, tmp_path / "changed")
    next(changed.glob("*/*")).unlink()
    capsys.readouterr()
    assert main(["reproduce", str(run), "--data", str(changed)]) == 1
    assert "its data has changed" in capsys.readouterr().err
    other = shutil.copytree(run, tmp_path / "other")
    recipe = Run.open(other).recipe.replace(epochs=None, minutes=1.0)
    (other / runfolder.RECIPE).write_text(recipe.to_yaml())
    assert main(["reproduce", str(other)]) == 1
    assert "the clock" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), -0.0])
def test_every_bit_counts(value: float, run: Path, tmp_path: Path) -> None:
    runs = [Run.open(shutil.copytree(run, tmp_path / name)) for name in ("one", "two")]
    for one, first in zip(runs, (0.0, value), strict=True):
        weights = one.model().state_dict()
        weights["head.weight"][0, 0] = first
        checkpoint.write_tensors(one.path / runfolder.WEIGHTS, weights, {})
    assert compare(runs[0], runs[0]).identical
    assert not compare(*runs).identical
    assert compare(runs[1], runs[1]).identical
    json.dumps(compare(*runs).to_dict(), allow_nan=False)
