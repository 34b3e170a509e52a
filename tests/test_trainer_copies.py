"""Test images that are also training images: what a finished run says about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from made_data import brightness
from peewit import report
from peewit.data.dataset import Dataset
from peewit.report.sentences import cautions
from peewit.runs import folder as runfolder
from peewit.trainer import train
from peewit.training.callbacks import Callback
from peewit.training.checkpoint import read_tensors
from peewit.training.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=8, threads=1)


def test_test_images_that_are_also_training_images(
    tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "after_training", lambda *_: None)  # it takes a second
    training, others = tiny.take(range(40)), brightness(10, 32, seed=5, apart=10)
    images = np.concatenate([others.images, training.images[:15]])
    test = Dataset(images, np.concatenate([others.labels, training.labels[:15]]), tiny.class_names)
    notes: list[str] = []

    class Notes(Callback):
        def on_note(self, text: str) -> None:
            notes.append(text)

    run = train(training, RECIPE, test=test, out=tmp_path / "copies", progress=Notes())
    found = run.metrics["also_in_training"]
    assert (found["images"], found["indices"]) == (15, list(range(10, 25)))
    alone = train(training, RECIPE, test=others, out=tmp_path / "alone", progress=Callback())
    assert found["accuracy_without"] == pytest.approx(alone.metrics["accuracy"])
    assert "also_in_training" not in alone.metrics
    (sentence,) = [text for text in notes if "without them" in text]
    assert sentence.startswith("15 of 25 test images are also training images; ")
    assert cautions(run)[-1] == f"Caution: {sentence}."
    weights = [read_tensors(one.path / runfolder.WEIGHTS)[0] for one in (run, alone)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
