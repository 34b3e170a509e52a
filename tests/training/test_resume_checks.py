"""An imported network can be trained on any data that fits it; a run recognises its own data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from made_runs import make_run
from peewit import train
from peewit.__main__ import main
from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.export import job
from peewit.importing.keras import import_keras
from peewit.runs.run import Run
from peewit.training.callbacks import Callback
from watching import At

NAMES = ["dark", "middle", "bright"]


@pytest.fixture
def imported(tmp_path: Path) -> Run:
    run = make_run(tmp_path / "run")
    job.export(run, "keras", raw=True, out=tmp_path / "net.keras")
    return import_keras(tmp_path / "net.keras", NAMES, out=tmp_path / "imported")


def test_imported_run_is_resumed_from_its_weights(
    imported: Run, tiny: Dataset, tiny_test: Dataset
) -> None:
    before = imported.model().state_dict()["hidden.weight"]
    recipe, told = imported.recipe.replace(epochs=1), At()
    run = train(tiny, recipe, test=tiny_test, resume=imported.path, progress=told)
    assert (run.status, len(run.history)) == ("finished", 1)
    assert any("biased upwards" in sentence for sentence in told.notes)
    # two steps of Adam, each of which changes a weight by about the learning rate at most
    change = (run.model().state_dict()["hidden.weight"] - before).abs().max()
    assert 0 < change < 0.02
    # now the data is recorded
    more = recipe.replace(epochs=2)
    with pytest.raises(PeewitError, match="not the data that it was trained on"):
        train(tiny.take(range(len(tiny) - 1)), more, resume=run.path, progress=Callback())
    run = train(tiny, more, test=tiny_test, resume=run.path, progress=Callback())
    assert len(run.history) == 2


def test_other_classes_are_refused(imported: Run, tiny: Dataset) -> None:
    other = dataclasses.replace(tiny, class_names=["dark", "bright", "middle"])
    with pytest.raises(PeewitError, match="other classes"):
        train(other, resume=imported.path, progress=Callback())
    assert Run.open(imported.path).status == "imported"


def test_other_channels_are_refused(imported: Run, tiny: Dataset) -> None:
    grey = dataclasses.replace(tiny, images=tiny.images[..., :1])
    with pytest.raises(PeewitError, match="32 x 32 x 3"):
        train(grey, resume=imported.path, progress=Callback())


def test_command_needs_a_source(imported: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(imported.path), "--epochs", "1"]) == 1
    assert "peewit train SOURCE --resume" in capsys.readouterr().err
