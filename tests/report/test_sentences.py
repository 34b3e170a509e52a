"""The sentences about recipe, cost and calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from peewit.report import sentences
from peewit.runs.run import Run
from peewit.training.recipe import Recipe


@pytest.fixture
def run(make: Any) -> Run:
    run: Run = make(["cat", "dog"]).run
    return run


def described(run: Run, recipe: Recipe) -> str:
    return " ".join(sentences.recipe(dataclasses.replace(run, recipe=recipe), 12_345))


def test_the_tutorial(run: Run) -> None:
    text = described(run, run.recipe)
    for part in (
        "with 12,345 trainable parameters",
        "RGB images of 22 x 22 pixels, with pixel values divided by 255",
        "trained on 60 images for 2 epochs with Adam: batch size 32, learning rate 0.001.",
        "were not augmented",
        "(10% of the training set) were held out",
        "The 60 test images were used once",
        "seed was 0",
        "gives the same weights",
        "threads (1)",
    ):
        assert part in text, part


def test_a_fast_recipe(run: Run) -> None:
    recipe = Recipe.preset("fast", epochs=2, translate=3, cutout=8)
    text = described(run, recipe)
    assert "Muon" in text
    assert "decaying linearly to 0" in text
    assert f"label smoothing {recipe.label_smoothing:g}" in text
    assert "random translation by up to 3 pixels and cutout of 8 x 8 pixels" in text
    assert "averaged over flipped and translated views" in text
    assert "skipped" not in text
    short = described(run, recipe.replace(skip_easy=0.25))
    assert "skipped the 25% of images with the lowest loss" in short
    # Without flips in training, the test does not flip either
    assert "averaged over translated views" in described(run, recipe.replace(flip="none"))


def test_time_budget_and_target_accuracy(run: Run) -> None:
    minutes = described(run, Recipe.preset("fast").budgeted(minutes=5))
    assert "with a time budget of 5 minutes (2 epochs)" in minutes
    assert "gives the same weights" not in minutes
    one = described(run, Recipe.preset("fast").budgeted(minutes=1))
    assert "with a time budget of 1 minute (" in one
    until = described(run, Recipe.preset("fast").budgeted(until_accuracy=0.9))
    assert "until 90.0% validation accuracy (2 epochs)" in until


def test_epochs_of_a_time_budget_are_fractions(run: Run) -> None:
    run.history[-1]["images"] = 138  # of 60 training images
    timed = dataclasses.replace(run, recipe=Recipe.preset("fast", minutes=5))
    assert "with a time budget of 5 minutes (2.3 epochs)" in described(timed, timed.recipe)
    assert sentences.cost(timed)[0][2] == "2.3 epochs, including validation"
    assert sentences.cost(timed)[1][:2] == ("Time per epoch", "8.7 s")
    stopped = dataclasses.replace(timed, status="interrupted")
    assert "interrupted after 2.3 epochs" in sentences.untested(stopped)
    once = dataclasses.replace(timed, history=[{**run.history[-1], "images": 61}])
    assert "(1 epoch)" in described(once, once.recipe)


def test_validation_on_the_test_set(run: Run) -> None:
    assert "The test set was used for validation" in described(
        run, run.recipe.replace(validate_on="test")
    )


def test_the_cost_has_only_what_was_measured(run: Run) -> None:
    assert [name for name, *_ in sentences.cost(run)] == ["Time", "Time per epoch", "Throughput"]
    run.history[-1].update(flops=4.7e13, gflops=95.0, share_of_best=0.61)
    found = {name: value for name, value, _ in sentences.cost(run)}
    assert found == {
        "Time": "20 s",
        "Time per epoch": "10 s",
        "Throughput": "1,000 images/s",
        "Compute": "47.0 TFLOP",
        "Compute rate": "95 GFLOP/s",
        "Efficiency": "61.0%",
    }
    run.history.clear()
    assert sentences.cost(run) == []


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.9, "neither overconfident nor underconfident"),
        (0.7, "overconfident by 20.0 percentage points"),
        (1.0, "underconfident by 10.0 percentage points"),
    ],
)
def test_calibration(accuracy: float, verdict: str) -> None:
    empty = {"images": 0, "confidence": 0.0, "accuracy": 0.0}
    text = sentences.calibration([empty, {"images": 5, "confidence": 0.9, "accuracy": accuracy}])
    assert text.endswith(f" is {verdict}.")


def test_temperature_scaling(run: Run) -> None:
    assert sentences.temperature(run) == ""
    fast = dataclasses.replace(run, recipe=Recipe.preset("fast"))
    assert (
        "there were no held-out images, too few of them, or the model had learned too little"
        in sentences.temperature(fast)
    )
    fast.metrics["temperature_scaling"] = {
        "temperature": 0.534,
        "images": 1000,
        "error_before": 0.201,
        "error_after": 0.0187,
    }
    text = sentences.temperature(fast)
    assert "are divided by 0.53, the best fit for the 1,000 held-out images" in text
    assert "from 20.1% to 1.9%" in text
    assert "same images" not in text
    fast.metrics["split"] = "validation"
    assert "same images" in sentences.temperature(fast)


def test_the_command_is_quoted_for_the_shell(run: Run) -> None:
    changed = dataclasses.replace(
        run, path=Path("my runs/a"), source={"source": "cifar100", "coarse": True, "data": "a b"}
    )
    assert sentences.command(changed) == (
        "peewit train cifar100 --data 'a b' --coarse --recipe 'my runs/a/recipe.yaml'"
    )
    assert sentences.command(dataclasses.replace(run, source={})).startswith("peewit train SOURCE ")
