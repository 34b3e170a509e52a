"""What the page says of a recipe, of the cost and of the confidence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from peewit.report import words
from peewit.runs.run import Run
from peewit.training.recipe import Recipe


@pytest.fixture
def run(make: Any) -> Run:
    run: Run = make(["cat", "dog"]).run
    return run


def said(run: Run, recipe: Recipe) -> str:
    return " ".join(words.recipe(dataclasses.replace(run, recipe=recipe), 12_345))


def test_the_tutorial(run: Run) -> None:
    text = said(run, run.recipe)
    for part in (
        "with 12,345 learned numbers",
        "colour pictures of 22 x 22 pixels, their values divided by 255",
        "training set of 60 pictures 2 times, 32 pictures a step",
        "with Adam at a learning rate of 0.001.",
        "not mirrored, moved or cut",
        "(10 % of the training set) were held out",
        "The 60 test pictures were used once",
        "seed 0",
        "gives the same weights",
        "threads (1)",
    ):
        assert part in text, part


def test_a_fast_recipe(run: Run) -> None:
    recipe = Recipe.preset("fast", epochs=2, translate=3, cutout=8)
    text = said(run, recipe)
    assert "Muon" in text
    assert "falling to 0" in text
    assert f"label smoothing {recipe.label_smoothing:g}" in text
    assert "moved by up to 3 pixels and shown with a hole of 8 x 8 pixels" in text
    assert "looked at in several ways" in text
    assert "(mirrored, moved)" in text
    assert "left out" not in text
    short = said(run, recipe.replace(skip_easy=0.25))
    assert "After the first epoch it left out the 25% of them that it knew best" in short
    # where left and right matter, the test does not mirror either
    assert "several ways (moved)" in said(run, recipe.replace(flip="none"))


def test_a_training_for_minutes_and_one_for_an_accuracy(run: Run) -> None:
    minutes = said(run, Recipe.preset("fast").budgeted(minutes=5))
    assert "for as long as 5 minutes allowed (2 times)" in minutes
    assert "gives the same weights" not in minutes
    one = said(run, Recipe.preset("fast").budgeted(minutes=1))
    assert "for as long as 1 minute allowed" in one
    until = said(run, Recipe.preset("fast").budgeted(until_accuracy=0.9))
    assert "until it got 90.0% of held-out pictures right (2 times)" in until


def test_passes_that_the_time_cut_short_are_parts(run: Run) -> None:
    run.history[-1]["images"] = 138  # of 60 training pictures
    timed = dataclasses.replace(run, recipe=Recipe.preset("fast", minutes=5))
    assert "for as long as 5 minutes allowed (2.3 times)" in said(timed, timed.recipe)
    assert words.cost(timed)[0][2] == "2.3 epochs, validation included"
    assert words.cost(timed)[1][:2] == ("An epoch", "8.7 s")
    stopped = dataclasses.replace(timed, status="interrupted")
    assert "interrupted after 2.3 epochs" in words.untested(stopped)
    once = dataclasses.replace(timed, history=[{**run.history[-1], "images": 61}])
    assert "allowed (once)" in said(once, once.recipe)


def test_the_test_set_as_validation(run: Run) -> None:
    assert "watched with the test set" in said(run, run.recipe.replace(validate_on="test"))


def test_cost_has_what_was_measured(run: Run) -> None:
    assert [name for name, *_ in words.cost(run)] == ["Time", "An epoch", "Speed"]
    run.history[-1].update(flops=4.7e13, gflops=95.0, share_of_best=0.61)
    found = {name: value for name, value, _ in words.cost(run)}
    assert found == {
        "Time": "20 s",
        "An epoch": "10 s",
        "Speed": "1,000 pictures/s",
        "Work": "47.0 TFLOP",
        "Rate": "95 GFLOP/s",
        "Share of the machine": "61.0%",
    }
    run.history.clear()
    assert words.cost(run) == []


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.9, "as sure as it is right"),
        (0.7, "20.0 points surer than it is right"),
        (1.0, "10.0 points less sure than it is right"),
    ],
)
def test_calibration(accuracy: float, verdict: str) -> None:
    none = {"images": 0, "confidence": 0.0, "accuracy": 0.0}
    text = words.calibration([none, {"images": 5, "confidence": 0.9, "accuracy": accuracy}])
    assert text.endswith(f"on the whole it is {verdict}.")


def test_how_it_was_calibrated(run: Run) -> None:
    assert words.temperature(run) == ""
    fast = dataclasses.replace(run, recipe=Recipe.preset("fast"))
    assert (
        "no held-out pictures to calibrate it by, or too few, or it has learned too little"
        in words.temperature(fast)
    )
    fast.metrics["temperature_scaling"] = {
        "temperature": 0.534,
        "images": 1000,
        "error_before": 0.201,
        "error_after": 0.0187,
    }
    text = words.temperature(fast)
    assert "are divided by 0.53, the temperature that suits the 1,000 held-out pictures" in text
    assert "was 20.1% before and is 1.9% now" in text
    assert "same pictures" not in text
    fast.metrics["split"] = "validation"
    assert "judged by the same pictures" in words.temperature(fast)


def test_the_command_is_quoted_for_a_shell(run: Run) -> None:
    changed = dataclasses.replace(
        run, path=Path("my runs/a"), source={"source": "cifar100", "coarse": True, "data": "a b"}
    )
    assert words.command(changed) == (
        "peewit train cifar100 --data 'a b' --coarse --recipe 'my runs/a/recipe.yaml'"
    )
    assert words.command(dataclasses.replace(run, source={})).startswith("peewit train SOURCE ")
