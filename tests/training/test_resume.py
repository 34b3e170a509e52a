"""The recipe of a resumed run: its own, with no more threads than are useful."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_data import noise
from peewit.errors import UsageError
from peewit.training import resume
from peewit.training.recipe import Recipe
from peewit.training.resolve import for_small_data
from peewit.training.resume import recipe_to_resume

DATA = noise(40, 8)
ASKED = Recipe.preset("fast", epochs=2)
# as runs keep them: resolved
BY_EPOCHS = for_small_data(ASKED, DATA, lambda sentence: None).replace(
    lr=0.1, translate=0, skip_easy=0.25, threads=4
)
BY_TIME = BY_EPOCHS.replace(epochs=None, minutes=1.0, model="fast-s", precision="bfloat16")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "usable_threads", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def resumed(before: Recipe, asked: Recipe | None, notes: list[str] | None = None) -> Recipe:
    told = [] if notes is None else notes
    return recipe_to_resume(Path("run"), before, asked, DATA, Path("none"), told.append)


@pytest.mark.parametrize("asked", [None, BY_EPOCHS.replace(threads=None)])
def test_training_by_epochs_keeps_its_threads_and_notes_the_cost(asked: Recipe | None) -> None:
    notes: list[str] = []
    assert resumed(BY_EPOCHS, asked, notes) == BY_EPOCHS
    (note,) = notes
    assert "4 threads" in note
    assert "--threads 2 is faster" in note


def test_training_by_time_uses_no_more_threads_than_cores() -> None:
    notes: list[str] = []
    assert resumed(BY_TIME, None, notes).threads == 2
    assert resumed(BY_TIME.replace(threads=1), None, notes).threads == 1
    assert notes == []


def test_requested_threads_are_used() -> None:
    notes: list[str] = []
    for before in (BY_EPOCHS, BY_TIME):
        assert resumed(before, before.replace(threads=3), notes).threads == 3
    assert notes == []


def test_far_too_many_threads_are_refused_with_advice() -> None:
    large = BY_EPOCHS.replace(threads=64)
    with pytest.raises(UsageError, match=r"threads is 64: .*--threads 2"):
        resumed(large, None)
    with pytest.raises(UsageError, match="omit it"):
        resumed(BY_EPOCHS, large)
    assert resumed(BY_TIME.replace(threads=64), None).threads == 2


def test_the_original_request_leads_to_the_same_recipe() -> None:
    assert ASKED.batch_size != BY_EPOCHS.batch_size
    assert resumed(BY_EPOCHS, ASKED.replace(threads=4)) == BY_EPOCHS
    by_time = Recipe.preset("fast").budgeted(minutes=1.0)
    assert resumed(BY_TIME, by_time) == BY_TIME.replace(threads=2)


def test_another_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot resume run with seed 1: it was trained with 0"):
        resumed(BY_EPOCHS, BY_EPOCHS.replace(seed=1))
    with pytest.raises(UsageError, match="batch_size 2"):
        resumed(BY_EPOCHS, BY_EPOCHS.replace(batch_size=2))
