"""The schedules of a run, without the measurements."""

from __future__ import annotations

import pytest

from peewit.errors import UsageError
from peewit.training.budget.pace import Pace
from peewit.training.budget.plan import Ending, Measured, Speed
from peewit.training.budget.schedules import Schedules
from peewit.training.recipe import Recipe
from peewit.training.schedules import EpochSchedule
from peewit.training.state import TrainState

SPEED = Speed(model="fast-xs", batch_size=100, step=0.1, inference=1e-4, flops=1e10)
ENDING = Ending(test=1.0, augmentation=1.0, rest=1.0)


def schedules(now: list[float], **budget: float) -> tuple[Schedules, list[str]]:
    """Return schedules on a clock that reads ``now[0]``, and the list of their notes."""
    notes: list[str] = []
    recipe = Recipe.preset("fast", model="fast-xs", **budget)
    measured = Measured(speed=SPEED, ending=ENDING)
    return Schedules(recipe, 1000, notes.append, measured, 0.0, lambda: now[0]), notes


def validated(position: TrainState, accuracy: float, spent: float) -> None:
    position.add_row({"validation_accuracy": accuracy}, 1.0)
    position.spent += spent
    position.seen += 100
    position.fraction_done = 1.0


def train_all(
    until: Schedules, position: TrainState, now: list[float], each: float, *found: float
) -> int:
    """Train all rounds of ``each`` seconds; return how many there were.

    They reach the accuracies ``found``, the last of which repeats.
    """
    count = 0
    for count, _ in enumerate(until.each(position), 1):
        now[0] += each
        validated(position, found[min(count, len(found)) - 1], each)
    return count


def test_epochs_have_no_schedule_by_time() -> None:
    plain, _ = schedules([0.0], epochs=3)
    (schedule,) = plain.each(TrainState())
    assert schedule == EpochSchedule(3, plain.recipe.steps(1000))


def test_minutes_have_one_schedule_and_a_note() -> None:
    now = [5.0]
    timed, notes = schedules(now, minutes=1)
    (schedule,) = timed.each(TrainState())
    assert isinstance(schedule, Pace)
    assert schedule.threads is not None
    assert notes == [
        "1 minute: fast-xs (16-64-128), about 52 epochs at 1,000 images/s; the training ends "
        "after about 57 s"
    ]
    schedule.observe(TrainState())
    assert not schedule.is_over(TrainState())
    now[0] = 56.8
    schedule.observe(TrainState())
    assert schedule.is_over(TrainState())


def test_a_training_by_time_begins_with_the_threads_that_were_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    for budget, begun in (
        ({"minutes": 1}, [2]),
        ({"until_accuracy": 0.5}, [2]),
        ({"epochs": 1}, []),
    ):
        used.clear()
        recipe = Recipe.preset("fast", model="fast-xs", threads=4, **budget)
        measured = Measured(speed=SPEED, ending=ENDING, threads=2)
        timed = Schedules(recipe, 1000, lambda sentence: None, measured, 0.0, lambda: 5.0)
        assert not used
        next(timed.each(TrainState()))
        assert used == begun


def test_too_few_minutes_are_an_error_but_not_when_going_on() -> None:
    with pytest.raises(UsageError, match=r"0\.05 minutes is not enough"):
        list(schedules([2.0], minutes=0.05)[0].each(TrainState()))
    with pytest.raises(UsageError, match=r"0\.05 minutes"):
        schedules([2.0], minutes=0.05)[0].check()
    (schedule,) = schedules([2.0], minutes=0.05)[0].each(TrainState(seen=100, spent=2.0))
    schedule.observe(TrainState())
    assert schedule.is_over(TrainState())


def test_without_time_to_fine_tune_the_last_layer_is_enough() -> None:
    notes: list[str] = []
    recipe = Recipe.preset("pretrained", minutes=0.05)
    speed = Speed(model=recipe.model, batch_size=32, step=3.0, inference=1e-2, flops=1e10)
    measured = Measured(speed=speed, ending=ENDING)
    late = Schedules(recipe, 1000, notes.append, measured, 0.0, lambda: 2.0)
    assert list(late.each(TrainState())) == []
    assert "last layer" in notes[0]


def test_resumed_run_uses_the_rest_of_its_budget() -> None:
    now = [5.0]
    state = TrainState(seen=100, fraction_done=0.5, spent=30.0)
    (schedule,) = schedules(now, minutes=1)[0].each(state)
    schedule.observe(state)
    assert schedule.fraction_done(state) == pytest.approx(0.5)
    now[0] = 26.8
    schedule.observe(state)
    assert schedule.is_over(state)


def test_rounds_end_when_the_accuracy_is_reached() -> None:
    now = [0.0]
    until, notes = schedules(now, until_accuracy=0.8)
    assert train_all(until, TrainState(), now, 100, 0.7, 0.85, 0.9) == 2
    assert not until.given_up
    assert "80.0%" in notes[0]
    assert "fast-xs" in notes[0]
    assert notes[1].startswith("continuing until")


def test_failed_rounds_are_reported() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=1.0)
    position = TrainState()
    train_all(until, position, now, 100, 0.6)
    error = until.failure(position, "ask for less")
    assert "100.0%" in error.what
    assert "4 rounds" in error.why
    assert "60.0%" in error.why
    assert error.todo == "ask for less"


def test_interrupted_round_is_continued() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=0.9)
    position = TrainState()
    rounds = until.each(position)
    next(rounds)
    now[0] += 100
    validated(position, 0.7, 100)
    second = next(rounds)
    assert second is not None
    now[0] += 30
    position.spent += 30
    second.observe(position)
    position.fraction_done = second.fraction_done(position)
    assert 0 < position.fraction_done < 1

    again, notes = schedules([500.0], until_accuracy=0.9)
    third = next(iter(again.each(position)))
    assert isinstance(second, Pace)
    assert isinstance(third, Pace)
    assert notes[0].startswith("continuing until")
    assert "90.0%" in notes[0]
    assert third.begun == position.fraction_done
    assert third.budget.seconds == pytest.approx(second.budget.seconds - 30)


def test_finished_rounds_are_followed_by_a_complete_one() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=0.8)
    position = TrainState()
    train_all(until, position, now, 100, 0.85)

    more, _ = schedules(now, until_accuracy=0.9)
    schedule = next(iter(more.each(position)))
    assert isinstance(schedule, Pace)
    assert schedule.begun == 0
    assert schedule.budget.seconds > 100


def test_minutes_limit_the_rounds() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=1.0, minutes=1)
    train_all(until, TrainState(), now, 57, 0.6)
    assert "1 min" in until.given_up


def test_augmentation_after_the_rounds_uses_the_remaining_budget() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=0.5, minutes=1)
    train_all(until, TrainState(), now, 51.0, 0.6)
    assert until.decide_augmentation(1.0)


def test_failed_rounds_do_not_count_after_a_new_request() -> None:
    now = [0.0]
    until, _ = schedules(now, until_accuracy=1.0)
    position = TrainState()
    train_all(until, position, now, 100, 0.6)
    assert until.given_up
    assert list(schedules(now, until_accuracy=1.0)[0].each(position)) != []
