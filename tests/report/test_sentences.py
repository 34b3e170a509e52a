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


def judged(accuracy: float, interval: tuple[float, float], images: int = 100) -> dict[str, Any]:
    """Return metrics of two classes, of which the first has three quarters of the images."""
    return {
        "accuracy": accuracy,
        "accuracy_interval": interval,
        "images": images,
        "classes": [{"images": images * 3 // 4}, {"images": images // 4}],
    }


def test_an_accuracy_above_the_baseline_needs_no_caution() -> None:
    assert sentences.no_better_than_baseline({}, [], 0.1) == ""
    assert sentences.no_better_than_baseline(judged(0.9, (0.82, 0.94)), [], 0.1) == ""


@pytest.mark.parametrize(
    ("metrics", "trained", "end"),
    [
        (
            judged(0.75, (0.66, 0.82)),
            [0.75],
            "(75.0%); train with a lower learning rate (--lr) than 1000, or for more epochs",
        ),
        (
            judged(0.7, (0.6, 0.78)),
            [0.99],
            "although the training accuracy is 99.0%; train on more images, and check that the "
            "test images are of the same kind",
        ),
        (judged(0.8, (0.71, 0.87)), [0.8], "as far as 100 images can tell: test on more"),
        (judged(0.2, (0.13, 0.29)), [], "check the order of the class names and the preprocessing"),
    ],
)
def test_an_accuracy_of_the_baseline_says_what_to_do(
    metrics: dict[str, Any], trained: list[float], end: str
) -> None:
    history = [{"accuracy": accuracy} for accuracy in trained]
    sentence = sentences.no_better_than_baseline(metrics, history, 1000)
    assert "is no better than always predicting the most frequent class (75.0%)" in sentence
    assert sentence.endswith(end)


def test_the_command_is_quoted_for_the_shell(run: Run) -> None:
    changed = dataclasses.replace(
        run, path=Path("my runs/a"), source={"source": "cifar100", "coarse": True, "data": "a b"}
    )
    assert sentences.command(changed) == (
        "peewit train cifar100 --data 'a b' --coarse --recipe 'my runs/a/recipe.yaml'"
    )
    assert sentences.command(dataclasses.replace(run, source={})).startswith("peewit train SOURCE ")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((30, 0.712), "30 of 60 test images are also training images; without them, the accuracy"),
        ((1, 0.712), "1 of 60 test images is also a training image; without it, the accuracy"),
        ((60, None), "all test images are also training images, so the accuracy does not apply"),
    ],
)
def test_copies_of_training_images(run: Run, found: tuple[int, float | None], said: str) -> None:
    assert sentences.cautions(run) == []
    images, accuracy = found
    metric = {"images": images, "indices": [4], "accuracy_without": accuracy}
    metrics = run.metrics | {"also_in_training": metric}
    (caution,) = sentences.cautions(dataclasses.replace(run, metrics=metrics))
    assert caution.startswith(f"Caution: {said}")
    assert accuracy is None or caution.endswith(" is 71.2%.")
