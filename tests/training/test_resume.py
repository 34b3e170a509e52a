"""The recipe that a run goes on with: its own, on as many threads as are of use."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_data import noise
from peewit.errors import UsageError
from peewit.training import resume as known
from peewit.training.build import fitted
from peewit.training.recipe import Recipe
from peewit.training.resume import recipe_to_go_on

DATA = noise(40, 8)
ASKED = Recipe.preset("fast", epochs=2)
# as runs have them: with all that was open when they began
BY_EPOCHS = fitted(ASKED, DATA, lambda sentence: None).replace(
    lr=0.1, translate=0, skip_easy=0.25, threads=4
)
BY_TIME = BY_EPOCHS.replace(epochs=None, minutes=1.0, model="fast-s", precision="bfloat16")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "usable_threads", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def go_on(before: Recipe, asked: Recipe | None, notes: list[str] | None = None) -> Recipe:
    told = [] if notes is None else notes
    return recipe_to_go_on(Path("run"), before, asked, DATA, Path("none"), told.append)


@pytest.mark.parametrize("asked", [None, BY_EPOCHS.replace(threads=None)])
def test_by_epochs_it_keeps_its_threads_and_says_what_they_cost(asked: Recipe | None) -> None:
    notes: list[str] = []
    assert go_on(BY_EPOCHS, asked, notes) == BY_EPOCHS
    (note,) = notes
    assert "going on with 4 threads" in note
    assert "--threads 2 is faster" in note


def test_by_time_it_takes_no_more_threads_than_are_of_use() -> None:
    notes: list[str] = []
    assert go_on(BY_TIME, None, notes).threads == 2
    assert go_on(BY_TIME.replace(threads=1), None, notes).threads == 1
    assert notes == []


def test_threads_that_are_asked_for_are_taken() -> None:
    notes: list[str] = []
    for before in (BY_EPOCHS, BY_TIME):
        assert go_on(before, before.replace(threads=3), notes).threads == 3
    assert notes == []


def test_far_too_many_threads_of_another_machine_are_refused_with_what_helps() -> None:
    large = BY_EPOCHS.replace(threads=64)
    with pytest.raises(UsageError, match=r"threads is 64: .*; the run began with .* --threads 2"):
        go_on(large, None)
    with pytest.raises(UsageError, match="leave it out"):
        go_on(BY_EPOCHS, large)
    assert go_on(BY_TIME.replace(threads=64), None).threads == 2


def test_the_recipe_that_it_began_with_is_the_same() -> None:
    assert ASKED.batch_size != BY_EPOCHS.batch_size
    assert go_on(BY_EPOCHS, ASKED.replace(threads=4)) == BY_EPOCHS
    by_time = Recipe.preset("fast").budgeted(minutes=1.0)
    assert go_on(BY_TIME, by_time) == BY_TIME.replace(threads=2)


def test_another_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot go on with run and seed 1: it was trained with 0"):
        go_on(BY_EPOCHS, BY_EPOCHS.replace(seed=1))
    with pytest.raises(UsageError, match="batch_size 2"):
        go_on(BY_EPOCHS, BY_EPOCHS.replace(batch_size=2))
