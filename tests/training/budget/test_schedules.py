"""What a training runs through, with the measuring left out."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.training.budget.pace import Pace
from peewit.training.budget.plan import Ending, Speed
from peewit.training.budget.planner import Choice
from peewit.training.budget.schedules import Course
from peewit.training.checkpoint import Position
from peewit.training.recipe import Recipe

SPEED = Speed(model="fast-xs", batch_size=100, step=0.1, inference=1e-4, flops=1e10)
ENDING = Ending(test=1.0, augmentation=1.0, rest=1.0)


def course(now: list[float], **budget: float) -> tuple[Course, list[str]]:
    """Return a course on a clock that is ``now[0]``, and the notes that it will make."""
    notes: list[str] = []
    recipe = Recipe.preset("fast", model="fast-xs", **budget)
    choice = Choice(recipe=recipe, speed=SPEED, ending=ENDING, best_rate=2e11)
    return Course(recipe, notes.append, 2e11, choice, 0.0, lambda: now[0]), notes


def validated(position: Position, accuracy: float, spent: float) -> None:
    position.next_row({"validation_accuracy": accuracy}, 1.0)
    position.spent += spent
    position.seen += 100
    position.share = 1.0


def train_all(
    until: Course, position: Position, now: list[float], each: float, *found: float
) -> int:
    """Train all rounds of ``each`` seconds, which come to ``found``, the last of it over and over.

    Returns how many there were.
    """
    count = 0
    for count, _ in enumerate(until.schedules(position, 1000), 1):
        now[0] += each
        validated(position, found[min(count, len(found)) - 1], each)
    return count


def test_epochs_need_no_schedule_of_time() -> None:
    plain, _ = course([0.0], epochs=3)
    assert list(plain.schedules(Position(), 1000)) == [None]


def test_minutes_are_one_schedule_and_the_plan_is_told() -> None:
    now = [5.0]
    timed, notes = course(now, minutes=1)
    (schedule,) = timed.schedules(Position(), 1000)
    assert isinstance(schedule, Pace)
    assert schedule.threads is not None
    assert notes == [
        "1 minute: fast-xs (16-64-128), about 52 epochs at 1,000 images/s; the training ends at "
        "about 57 s"
    ]
    assert not schedule.done(Position())
    now[0] = 56.8
    assert schedule.done(Position())


def test_too_few_minutes_are_an_error_but_not_when_going_on() -> None:
    with pytest.raises(UsageError, match=r"0\.05 minutes are too little"):
        list(course([2.0], minutes=0.05)[0].schedules(Position(), 1000))
    (schedule,) = course([2.0], minutes=0.05)[0].schedules(Position(seen=100, spent=2.0), 1000)
    assert schedule is not None
    assert schedule.done(Position())


def test_going_on_has_the_time_that_was_left() -> None:
    now = [5.0]
    (schedule,) = course(now, minutes=1)[0].schedules(
        Position(seen=100, share=0.5, spent=30.0), 1000
    )
    assert schedule is not None
    assert schedule.share(Position(seen=100)) == pytest.approx(0.5)
    now[0] = 26.8
    assert schedule.done(Position(seen=100))


def test_rounds_end_when_the_accuracy_is_reached() -> None:
    now = [0.0]
    until, notes = course(now, until_accuracy=0.8)
    assert train_all(until, Position(), now, 100, 0.7, 0.85, 0.9) == 2
    assert not until.given_up
    assert notes[0].startswith("training until 80.0% of held-out images are right: fast-xs")
    assert notes[1].startswith("going on until 80.0%")


def test_rounds_give_up_and_say_so() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=1.0)
    position = Position()
    train_all(until, position, now, 100, 0.6)
    assert str(until.failure(position, "go on")) == (
        "100.0% of the held-out images right was not reached: 4 rounds of training did not reach "
        "it, and 60.0% are; everything is saved; go on"
    )


def test_a_round_that_was_stopped_goes_on_where_it_was() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=0.9)
    position = Position()
    rounds = until.schedules(position, 1000)
    next(rounds)
    now[0] += 100
    validated(position, 0.7, 100)
    second = next(rounds)
    assert second is not None
    now[0] += 30
    position.spent += 30
    position.share = second.share(position)
    assert 0 < position.share < 1

    again, notes = course([500.0], until_accuracy=0.9)
    third = next(iter(again.schedules(position, 1000)))
    assert isinstance(second, Pace)
    assert isinstance(third, Pace)
    assert notes[0].startswith("going on until 90.0%")
    assert third.begun == position.share
    assert third.budget.seconds == pytest.approx(second.budget.seconds - 30)


def test_after_rounds_that_ended_comes_a_whole_one() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=0.8)
    position = Position()
    train_all(until, position, now, 100, 0.85)

    more, _ = course(now, until_accuracy=0.9)
    schedule = next(iter(more.schedules(position, 1000)))
    assert isinstance(schedule, Pace)
    assert schedule.begun == 0
    assert schedule.budget.seconds > 100


def test_minutes_bound_the_rounds() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=1.0, minutes=1)
    train_all(until, Position(), now, 57, 0.6)
    assert until.given_up == "the time is over (1 min)"


def test_what_is_left_after_the_rounds_has_augmentation_if_the_whole_has() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=0.5, minutes=1)
    train_all(until, Position(), now, 51.0, 0.6)
    assert until.augmentation_fits(1.0)


def test_rounds_that_were_given_up_count_no_more_when_more_is_asked_for() -> None:
    now = [0.0]
    until, _ = course(now, until_accuracy=1.0)
    position = Position()
    train_all(until, position, now, 100, 0.6)
    assert until.given_up
    assert list(course(now, until_accuracy=1.0)[0].schedules(position, 1000)) != []


@pytest.mark.parametrize(
    ("labels", "names", "sentence"),
    [
        ([0, 0, 0], ["cat", "dog"], "all training images are of the class 'cat'"),
        ([0, 1], ["cat", "dog", "cow"], "2 training images are too few for 3 classes"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    labels: list[int], names: list[str], sentence: str
) -> None:
    data = Dataset(np.zeros((len(labels), 8, 8, 3), np.uint8), np.array(labels), names)
    with pytest.raises(PeewitError, match=sentence):
        Course.measured(data, None, Recipe(), 0.0, lambda text: None)


@pytest.mark.parametrize(
    ("has", "precision", "settled", "told"),
    [
        (True, "float32", False, True),
        (False, "float32", False, False),
        (True, "bfloat16", False, False),
        (True, "float32", True, False),
    ],
)
def test_who_counts_epochs_is_told_of_bfloat16_where_it_is(
    has: bool, precision: str, settled: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.training.budget.schedules.best_rate", lambda: 1e11)
    monkeypatch.setattr("peewit.training.budget.schedules.has_bfloat16", lambda: has)
    data = Dataset(np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2, ["cat", "dog"])
    recipe, notes = Recipe.preset("fast", epochs=1, precision=precision), list[str]()
    course = Course.measured(data, None, recipe, 0.0, notes.append, settled=settled)
    assert course.recipe.precision == precision
    assert any("multiplies bfloat16" in note for note in notes) is told
