"""``peewit.train`` from a pretrained network, on small pictures of noisy colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from made_data import brightness
from made_pictures import folder_of_pictures
from peewit import report, training_run
from peewit.data.sources import load
from peewit.errors import Interrupted, PeewitError, UsageError
from peewit.models import pretrained
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.callbacks import Callback
from peewit.training.checkpoint import read_tensors
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState

RECIPE = Recipe.preset("pretrained", image_size=32, folds=0, threads=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("pictures") / "made", 24, size=(64, 80))


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, which takes longer than these trainings."""
    monkeypatch.setattr(report, "after_training", lambda *_: None)


class Stop(Callback):
    """Asks to stop after the second step of the second epoch."""

    asked = False

    def on_step_end(self, state: TrainState) -> None:
        self.asked = (state.epoch, state.step) == (1, 2)

    def should_stop(self) -> bool:
        return self.asked


def trained(pictures: Path, out: Path, recipe: Recipe = RECIPE, **options: Any) -> Run:
    splits = load(str(pictures))
    source = {"source": str(pictures)}
    options = {"progress": Callback(), "source": source, **options}
    return train(splits.train, recipe, test=splits.test, out=out, **options)


def test_only_the_last_layer_is_fitted(pictures: Path, tmp_path: Path) -> None:
    run = trained(pictures, tmp_path / "run")
    assert (run.status, run.epochs, [row["epoch"] for row in run.history]) == ("finished", 0, [0])
    assert run.metrics["accuracy"] == 1.0
    assert run.preprocessing.mean == pytest.approx((127 / 255,) * 3)
    tensors = read_tensors(run.path / "model.safetensors")[0]
    network = run.model()
    pretrained.load_weights(network, "efficientnet-lite0")  # type: ignore[arg-type]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensors[name], tensor) or name.startswith("head."), name
    # the same answers from the network as from the features
    splits = load(str(pictures))
    found = run.probabilities(np.stack([splits.train.images[at] for at in range(9)]))
    assert found.argmax(1).tolist() == splits.train.labels[:9].tolist()


def test_an_interrupted_fine_tuning_is_resumed(pictures: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace(epochs=2, batch_size=20)
    whole = trained(pictures, tmp_path / "whole", recipe)
    assert [row["epoch"] for row in whole.history] == [0, 1, 2]
    with pytest.raises(Interrupted):
        trained(pictures, tmp_path / "cut", recipe, callbacks=[Stop()])
    assert Run.open(tmp_path / "cut").status == "interrupted"
    splits = load(str(pictures))
    cut = train(splits.train, None, resume=tmp_path / "cut", progress=Callback())
    first, second = (read_tensors(run.path / "model.safetensors")[0] for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert cut.metrics["accuracy"] == whole.metrics["accuracy"]


def test_fine_tuning_that_harms_is_undone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    # a rate at which the network forgets everything
    run = trained(pictures, tmp_path / "run", RECIPE.replace(epochs=1, lr=5.0), progress=Notes())
    assert run.history[-1]["validation_accuracy"] < run.history[0]["validation_accuracy"]
    assert run.metrics["accuracy"] == 1.0
    assert any("keeps its pretrained weights" in note for note in notes)
    plain = trained(pictures, tmp_path / "plain")
    kept, wanted = (read_tensors(one.path / "model.safetensors")[0] for one in (run, plain))
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)


def test_few_pictures_are_cross_validated(tmp_path: Path) -> None:
    few = folder_of_pictures(tmp_path / "few", 12, size=(64, 80))
    run = trained(few, tmp_path / "run", RECIPE.replace(epochs=3, folds=None))
    assert run.metrics["split"] == "cross-validation"
    assert len(run.metrics["fold_accuracies"]) == 10
    assert run.metrics["images"] == 36
    assert (run.recipe.fine_tune, run.epochs) == ("none", 0)


def test_pictures_start_pretrained_if_there_are_weights(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.preset("auto", minutes=1, image_size=32, fine_tune="none", seed=3, folds=0)
    run = trained(pictures, tmp_path / "with", recipe)
    assert (run.recipe.name, run.recipe.start, run.recipe.seed) == ("pretrained", "pretrained", 3)
    monkeypatch.setattr(pretrained, "available", lambda name: False)
    scratch = Recipe.preset("auto", epochs=1, image_size=32, seed=3, folds=0)
    run = trained(pictures, tmp_path / "without", scratch)
    assert (run.recipe.name, run.recipe.start) == ("fast", "scratch")


def test_missing_weights_are_an_error_if_they_are_requested(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(PeewitError, match=r"peewit\[pretrained\]"):
        trained(pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_grey_arrays_smaller_than_the_input(tmp_path: Path) -> None:
    images = brightness(40, 24)
    run = train(images, RECIPE, out=tmp_path / "run", progress=Callback())
    assert run.preprocessing.channels == 3
    assert run.probabilities(images.images[:5]).shape == (5, len(images.class_names))


def test_no_epochs_are_only_for_pretrained_networks() -> None:
    with pytest.raises(UsageError, match="epochs is 0: it must be at least 1"):
        Recipe.preset("fast", epochs=0)


def test_features_are_not_used_after_fine_tuning(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "better_of_both", lambda tuned, *_: tuned)
    run = trained(pictures, tmp_path / "run", RECIPE.replace(epochs=1, lr=5.0))
    # chance, because the network has forgotten everything: the features would say otherwise
    assert run.metrics["accuracy"] < 0.9
