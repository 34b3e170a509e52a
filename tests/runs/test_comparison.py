from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from peewit.evaluation.metrics import wilson_interval
from peewit.images.preprocessing import Preprocessing
from peewit.runs.comparison import (
    VALIDATED_ON_TEST_SET,
    comparison,
    differences,
    epochs_text,
    facts,
    readings,
    table,
)
from peewit.runs.run import Run
from peewit.training.recipe import Recipe

EPOCH = {
    "seconds": 300.0,
    "images_per_second": 900.0,
    "loss": 1.0,
    "accuracy": 0.5,
    "validation_loss": 1.1,
    "validation_accuracy": 0.6,
}


def made(name: str, hits: int | None = 7000, **changes: Any) -> Run:
    """Create a run with ``hits`` of 10,000 test images correct; None for an interrupted one."""
    finished = hits is not None
    metrics = {
        "accuracy": (hits or 0) / 10_000,
        "accuracy_interval": list(wilson_interval(hits or 0, 10_000)),
        "loss": 0.9,
        "split": "test",
    }
    run = Run(
        path=Path("runs") / name,
        recipe=Recipe(epochs=2),
        class_names=("a", "b"),
        preprocessing=Preprocessing(32, 32, 3, (0,) * 3, (1,) * 3),
        history=[{"epoch": 1, **EPOCH}, {"epoch": 2, **EPOCH}] if finished else [],
        metrics=metrics if finished else {},
        environment={"date": "2026-07-01T12:30:45+02:00", "torch": "2.13.0", "command": name},
        source={"source": "cifar10", "data": None, "coarse": False},
        dataset={"fingerprints": {"training": "aa" * 32, "test": "bb" * 32}},
        status="finished" if finished else "interrupted",
    )
    return dataclasses.replace(run, **changes)


def cells(text: str, row: int) -> list[str]:
    return text.splitlines()[row].split()


def test_the_table_has_the_results_of_each_run() -> None:
    text = table([made("one"), made("two", None)])
    first, second = cells(text, 1), cells(text, 2)
    assert first[:6] == [str(Path("runs/one")), "finished", "2/2", "70.00%", "±", "0.90%"]
    assert " ".join(first[6:]) == "0.9000 60.00% 10 min 0 s cifar10 tutorial 2026-07-01 12:30"
    assert second[1:7] == ["interrupted", "0/2", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("recipe", "status", "expected"),
    [
        (Recipe(epochs=2), "finished", "2/2"),
        (Recipe(epochs=5), "interrupted", "2/5"),
        (Recipe(minutes=5), "finished", "1.3 in 5 min"),
        (Recipe(minutes=0.25), "running", "1.3 so far"),
        (Recipe(until_accuracy=0.905), "finished", "1.3 until 90.5%"),
        (Recipe(minutes=5, until_accuracy=0.9), "finished", "1.3 until 90%"),
        (Recipe(), "imported", "-"),
    ],
)
def test_epochs_are_shown_with_the_limit_of_the_recipe(
    recipe: Recipe, status: str, expected: str
) -> None:
    run = made("one", recipe=recipe, status=status)
    run.dataset["images"] = {"training": 450}
    run.history[-1]["images"] = 600
    if status == "imported":
        run.history.clear()
    assert epochs_text(run) == expected
    fact = facts(run)
    limits = fact["of_epochs"], fact["minutes"], fact["until_accuracy"]
    if status == "imported":
        assert limits == (None, None, None)
        assert fact["recipe"] is None
    else:
        assert limits == (recipe.epochs, recipe.minutes, recipe.until_accuracy)
        assert fact["epochs"] == (2 if recipe.by_epochs else pytest.approx(600 / 450))


def test_the_table_of_a_run_without_source_and_date() -> None:
    text = table([made("one", source={}, environment={})])
    assert cells(text, 1)[-3:] == ["-", "tutorial", "-"]


def test_a_narrow_table_drops_columns_from_the_right() -> None:
    runs = [made("one"), made("two", None)]
    whole = table(runs).splitlines()
    for width in (80, 60, 50):
        narrow = table(runs, width).splitlines()
        assert max(map(len, narrow)) <= width
        assert all(full.startswith(line) for full, line in zip(whole, narrow, strict=True))
    assert table(runs, 1).splitlines()[0].split() == ["run", "status", "epochs", "accuracy"]
    assert table(runs, 1000).splitlines() == whole
    assert max(map(len, comparison(runs, 60).split("\n\n")[0].splitlines())) <= 60


def test_facts_have_the_same_keys_for_every_run() -> None:
    fact = facts(made("one"))
    assert fact["run"] == str(Path("runs/one"))
    assert fact["seconds"] == 600
    assert fact["images_per_second"] == 900
    assert fact["validation_accuracy"] == 0.6
    assert fact["accuracy"] == 0.7
    assert set(fact) == set(facts(made("two", None)))
    assert facts(made("two", None))["accuracy"] is None


def test_only_different_settings_are_listed() -> None:
    other = made(
        "two",
        recipe=Recipe(epochs=2, lr=0.01, seed=1),
        environment={"date": "later", "torch": "2.14.0", "command": "other", "cores": 2},
        source={"source": "digits"},
        dataset={"fingerprints": {"training": "aa" * 32, "test": "cc" * 32}},
    )
    assert differences([made("one"), other]) == {
        "recipe.lr": [0.001, 0.01],
        "recipe.seed": [0, 1],
        "data.source": ["cifar10", "digits"],
        "data.test fingerprint": ["b" * 12, "c" * 12],
        "environment.torch": ["2.13.0", "2.14.0"],
        "environment.cores": [None, 2],
    }


def test_only_the_model_of_an_imported_run_is_known() -> None:
    imported = made("two", recipe=Recipe(epochs=5), status="imported", history=[], metrics={})
    assert differences([made("one"), imported]) == {}
    assert differences([imported, imported]) == {}
    fast = made("three", recipe=Recipe(epochs=2, model="fast-s"))
    assert differences([fast, imported]) == {"recipe.model": ["fast-s", "tutorial"]}
    other = made("four", recipe=Recipe(epochs=2, lr=0.01))
    found = differences([imported, made("one"), other])
    assert found == {"recipe.lr": [None, 0.001, 0.01]}
    assert table([imported]).split()[-4:-2] == ["cifar10", "-"]


def test_runs_that_used_the_test_set_for_validation_are_named() -> None:
    watched = made("two", recipe=Recipe(epochs=2, validate_on="test"))
    equal, caution = readings([made("one"), watched])
    assert "same accuracy" in equal
    assert caution == f"two: {VALIDATED_ON_TEST_SET}."
    # Not known of an imported run, and without a meaning for one that is not tested
    for other in (
        dataclasses.replace(watched, status="imported"),
        dataclasses.replace(watched, metrics={}),
    ):
        assert len(readings([made("one"), other])) == 1


def test_equal_runs_have_no_differences() -> None:
    assert differences([made("one"), made("two")]) == {}
    assert "same recipe, data and environment" in comparison([made("one"), made("two")])


def test_runs_with_the_same_name_are_shown_by_their_paths() -> None:
    (sentence,) = readings([made("a/run", 7000), made("b/run", 7000)])
    assert str(Path("runs/a/run")) in sentence
    assert str(Path("runs/b/run")) in sentence


def test_disjoint_intervals_are_a_significant_difference() -> None:
    (sentence,) = readings([made("one", 7000), made("two", 7300)])
    assert sentence.startswith("two is 3.00 percentage points more accurate than one: ")
    assert "do not overlap, so the difference is statistically significant" in sentence
    (sentence,) = readings([made("one", 7300), made("two", 7000)])
    assert sentence.startswith("two is 3.00 percentage points less accurate than one: ")
    assert "do not overlap" in sentence


def test_overlapping_intervals_are_no_significant_difference() -> None:
    # The interval of 7000 ends at 70.89 %, the interval of 7180 begins at 70.91 %
    (disjoint,) = readings([made("one", 7000), made("two", 7181)])
    (overlap,) = readings([made("one", 7000), made("two", 7170)])
    assert "do not overlap" in disjoint
    assert "intervals overlap, so the difference may be due to chance" in overlap


def test_equal_accuracies() -> None:
    assert readings([made("one"), made("two")]) == ["two and one have the same accuracy."]


@pytest.mark.parametrize(
    ("first", "second", "untested"), [(None, 7000, "one"), (7000, None, "two")]
)
def test_untested_runs_are_not_compared(
    first: int | None, second: int | None, untested: str
) -> None:
    (sentence,) = readings([made("one", first), made("two", second)])
    assert sentence.endswith(f"{untested} has not been tested yet.")


def test_runs_tested_on_different_images_are_not_compared() -> None:
    elsewhere = made("two", 9000, dataset={"fingerprints": {"training": "aa", "test": "cc"}})
    (sentence,) = readings([made("one"), elsewhere])
    assert "tested on different images" in sentence
    held_out = {**made("x").metrics, "split": "validation"}
    (sentence,) = readings([made("one"), made("two", metrics=held_out)])
    assert "tested on different images" in sentence
    # The same held-out images of the same data, and different ones
    one = made("one", metrics=held_out)
    (sentence,) = readings([one, made("two", metrics=held_out)])
    assert "same accuracy" in sentence
    (sentence,) = readings([one, made("two", metrics=held_out, recipe=Recipe(epochs=2, seed=1))])
    assert "tested on different images" in sentence


def test_the_comparison_has_results_differences_and_readings() -> None:
    runs = [made("one"), made("two", 7300, recipe=Recipe(epochs=2, lr=0.01)), made("three", None)]
    first, second, third = comparison(runs).split("\n\n")
    assert len(first.splitlines()) == 4
    assert second.splitlines()[0].split() == ["difference", "one", "two", "three"]
    assert second.splitlines()[1].split() == ["recipe.lr", "0.001", "0.01", "0.001"]
    assert len(third.splitlines()) == 2


def test_imported_runs_are_compared_by_the_fingerprint_of_their_test_set() -> None:
    one, same, other, unknown = (made(name, dataset={}) for name in ("one", "same", "other", "no"))
    one.metrics["fingerprint"] = same.metrics["fingerprint"] = "b" * 64
    other.metrics["fingerprint"] = "c" * 64
    trained = made("trained")  # the fingerprint of its test set is "bb..."
    different = "tested on different images"
    assert different not in readings([one, same])[0]
    assert different not in readings([one, trained])[0]
    assert different in readings([one, other])[0]
    # Without fingerprints, the test sets are not known
    assert different in readings([unknown, made("no 2", dataset={})])[0]
