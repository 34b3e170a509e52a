"""A training of few steps is judged by its weights, not by batch normalisation's first values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from made_data import brightness
from peewit import plots, report
from peewit.data.dataset import Dataset
from peewit.errors import Interrupted
from peewit.report import sentences
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.callbacks import Callback
from peewit.training.checkpoint import read_tensors
from peewit.training.recipe import Recipe

# 108 training images and 12 held out: 42 steps
RECIPE = Recipe(epochs=3, batch_size=8, threads=1)
DATA, TEST = brightness(120, 22), brightness(90, 22, seed=1)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save_curves", "save_confusion", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda path, *rest: path.touch())
    monkeypatch.setattr(report, "after_training", lambda run, evidence, note: None)


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def tensors(run: Run, name: str) -> dict[str, torch.Tensor]:
    return read_tensors(run.path / name)[0]


def test_few_steps_are_judged_by_estimated_statistics(tmp_path: Path) -> None:
    told = Notes()
    run = train(DATA, RECIPE, test=TEST, out=tmp_path / "auto", progress=told)
    moving = RECIPE.replace(batch_norm_statistics="moving")
    keras = train(DATA, moving, test=TEST, out=tmp_path / "moving", progress=Callback())
    assert keras.metrics["accuracy"] < 0.7  # the images are easy, but the moving statistics lag
    assert run.metrics["accuracy"] > 0.95
    assert run.history[-1]["validation_accuracy"] > 0.9
    (sentence,) = (note for note in told.notes if "batch normalisation" in note)
    assert "estimated from 108 training images" in sentence
    assert run.metrics["batch_norm_images"] == 108
    assert "estimated from 108 training images" in " ".join(sentences.recipe(run, None))
    assert "batch_norm_images" not in keras.metrics
    # the training is Keras's, step by step; only the final weights have other statistics
    ours, theirs = (tensors(one, runfolder.CHECKPOINT) for one in (run, keras))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(
        torch.equal(value, ours[f"model/{name}"]) != ("running" in name)
        for name, value in tensors(run, runfolder.WEIGHTS).items()
    )
    # what is saved is what was tested
    correct = run.logits(TEST.images).argmax(1) == TEST.labels
    assert correct.mean() == run.metrics["accuracy"]


def test_it_is_resumed_to_the_same_statistics(tmp_path: Path) -> None:
    whole = train(DATA, RECIPE, test=TEST, out=tmp_path / "whole", progress=Callback())
    parts = tmp_path / "parts"
    recipe = RECIPE.replace(epochs=2)
    train(DATA, recipe, test=TEST, out=parts, progress=Callback())
    asked = Stop()
    with pytest.raises(Interrupted):
        train(DATA, RECIPE, test=TEST, resume=parts, progress=asked)
    run = train(DATA, None, test=TEST, resume=parts, progress=Callback())
    for name in (runfolder.WEIGHTS, runfolder.CHECKPOINT):
        ours, theirs = tensors(run, name), tensors(whole, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert run.history[-1]["validation_loss"] == whole.history[-1]["validation_loss"]
    assert run.metrics["loss"] == whole.metrics["loss"]


class Stop(Callback):
    """Asks to stop in the validation after the last epoch."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, state: object) -> None:
        self.steps += 1

    def should_stop(self) -> bool:
        if self.steps == 14:
            self.steps = 15  # the step itself is not stopped, but the first batch after it
        elif self.steps == 15:
            return True
        return False


def test_the_statistics_can_be_chosen_afterwards(tmp_path: Path) -> None:
    recipe = RECIPE.replace(epochs=1)
    run = train(DATA, recipe, test=TEST, out=tmp_path / "run", progress=Callback())
    moving = run.recipe.replace(batch_norm_statistics="moving")
    again = train(DATA, moving, test=TEST, resume=run.path, progress=Callback())
    assert again.recipe.batch_norm_statistics == "moving"
    assert "batch_norm_images" not in again.metrics
    assert again.metrics["accuracy"] < run.metrics["accuracy"]
    assert again.epochs == 1


def test_enough_steps_keep_the_moving_statistics(tmp_path: Path) -> None:
    # 10 steps an epoch: the fast networks forget their first values in 32
    recipe = Recipe.preset("fast", model="fast-xs", epochs=4, batch_size=10, threads=1)
    data = brightness(120, 8)
    run = train(data, recipe, test=TEST, out=tmp_path / "run", progress=Callback())
    assert "batch_norm_images" not in run.metrics
    weights, trained = tensors(run, runfolder.WEIGHTS), tensors(run, runfolder.CHECKPOINT)
    for name, value in weights.items():
        if "running" in name:
            assert torch.equal(value, trained[f"model/{name}"]), name


def test_a_diverged_training_does_not_end_without_a_word(tmp_path: Path) -> None:
    told = Notes()
    diverged = RECIPE.replace(epochs=1, lr=1000.0)
    # Which accuracy a diverged network has is chance, and depends on the processor. On images that
    # are all alike it is that of predicting one class.
    alike = Dataset(np.zeros_like(TEST.images), TEST.labels, TEST.class_names)
    run = train(DATA, diverged, test=alike, out=tmp_path / "run", progress=told)
    (sentence,) = (note for note in told.notes if "most frequent class" in note)
    assert "no better than always predicting the most frequent class (33.3%)" in sentence
    assert sentence.endswith(
        "train with a lower learning rate (--lr) than 1000, or for more epochs"
    )
    assert sentences.cautions(run) == [f"Caution: {sentence}."]


def test_a_recipe_of_an_earlier_version_is_auto(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    lines = RECIPE.to_yaml().splitlines()
    file.write_text("\n".join(line for line in lines if "batch_norm" not in line))
    assert Recipe.from_yaml(file).batch_norm_statistics == "auto"
