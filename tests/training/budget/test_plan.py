"""Plan and pace on simulated machines, whose clock advances when they work."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from peewit.errors import UsageError
from peewit.training.budget.benchmark import Machine as RealMachine
from peewit.training.budget.benchmark import best_rate, measure
from peewit.training.budget.frontier import NETWORKS
from peewit.training.budget.pace import Pace
from peewit.training.budget.plan import (
    FEWEST_STEPS,
    SAFETY,
    Budget,
    Ending,
    Plan,
    Speed,
    candidates,
    choose,
    make_plan,
)
from peewit.training.budget.schedules import Schedules
from peewit.training.budget.threads import RECENT, Threads
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState

IMAGES = 45_000
LOADING = 3.0


def speed(model: str = "fast-m", step: float = 0.4, batch: int = 250) -> Speed:
    return Speed(
        model=model, batch_size=batch, step=step, inference=step / batch / 3, flops=step * 2e11
    )


def ending(of: Speed) -> Ending:
    return Ending(test=15_000 * of.inference, augmentation=15_000 * of.inference, rest=1.5)


@dataclass
class Machine:
    """A machine that is ``speed`` times as fast as the measured one."""

    speed: Callable[[float], float] = lambda time: 1.0
    jitter: float = 0.0
    time: float = 0.0
    numbers: random.Random = field(default_factory=lambda: random.Random(0))

    def now(self) -> float:
        return self.time

    def work(self, seconds: float) -> float:
        """Do some work; return how long it took."""
        began = self.time
        left = seconds * (1 + self.jitter * self.numbers.uniform(-1, 1))
        while left > 1e-9:  # in slices, because the speed may change on the way
            part = min(left, 0.02)
            self.time += part / self.speed(self.time)
            left -= part
        return self.time - began


@dataclass
class Outcome:
    took: float
    steps: int
    shares: list[float]
    augmented: bool
    plan: Plan


def live(machine: Machine, seconds: float, of: Speed, begun: float = 0.0) -> Outcome:
    """Load, plan, train, test and draw, as a run with a time budget does."""
    budget = Budget(seconds, began=0.0, now=machine.now)
    machine.work(LOADING)
    plan = make_plan(budget, of, ending(of), IMAGES)
    pace, shares = Pace(budget, plan, begun), []
    position = TrainState()
    while True:
        pace.observe(position)
        if pace.is_over(position):
            break
        shares.append(pace.fraction_done(position))
        position.seconds += machine.work(of.step)
        position.step += 1
        position.images += of.batch_size
        position.seen += of.batch_size
        if position.images >= IMAGES:
            position.add_row({}, 0.0)
            position.next_epoch()
    test = machine.work(plan.ending.test)
    augmented = pace.decide_augmentation(test)
    if augmented:
        machine.work(plan.ending.augmentation)
    machine.work(plan.ending.rest)
    return Outcome(machine.time, len(shares), shares, augmented, plan)


def fitting(seconds: float) -> Speed:
    """Return a network whose test takes a twentieth of the budget, as usual."""
    return speed(step=seconds / 900)


def bounds(seconds: float) -> tuple[float, float]:
    """Assert that it ended within 5 % of the budget, and at most 5 s late."""
    return 0.95 * seconds, seconds + min(0.05 * seconds, 5.0)


@pytest.mark.parametrize("seconds", [30, 60, 120, 300, 600, 900, 1800])
def test_ends_on_time_on_an_idle_machine(seconds: float) -> None:
    outcome = live(Machine(jitter=0.1), seconds, fitting(seconds))
    low, high = bounds(seconds)
    assert low <= outcome.took <= high
    assert outcome.augmented
    assert outcome.steps == pytest.approx(outcome.plan.training / outcome.plan.speed.step, rel=0.05)


@pytest.mark.parametrize("seconds", [60, 300, 900])
def test_background_load_from_half_time(seconds: float) -> None:
    machine = Machine(speed=lambda time: 1.0 if time < seconds / 2 else 0.5)
    outcome = live(machine, seconds, fitting(seconds))
    low, high = bounds(seconds)
    assert low <= outcome.took <= high
    quiet = live(Machine(), seconds, fitting(seconds))
    assert 0.65 < outcome.steps / quiet.steps < 0.8


@pytest.mark.parametrize("seed", range(200))
def test_ends_on_time_at_changing_speeds(seed: int) -> None:
    numbers = random.Random(seed)
    seconds = numbers.choice([60, 90, 120, 300, 600, 1800])
    # the speed changes a few times, to between a third and full, but not at the end
    changes = sorted(numbers.uniform(0, 0.75 * seconds) for _ in range(numbers.randrange(4)))
    speeds = [1.0, *(numbers.uniform(0.4, 1.2) for _ in changes)]

    def rate(time: float) -> float:
        return speeds[sum(change < time for change in changes)]

    machine = Machine(speed=rate, jitter=numbers.uniform(0, 0.2))
    step = numbers.uniform(seconds / 2000, seconds / 600)
    outcome = live(machine, seconds, speed(step=step))
    low, high = bounds(seconds)
    assert low <= outcome.took <= high
    assert outcome.shares == sorted(outcome.shares)
    assert outcome.shares[0] < 0.02
    assert outcome.shares[-1] > 0.96  # the learning rates have decayed to almost 0


def test_slowdown_during_the_test_skips_augmentation() -> None:
    of = speed(step=0.9, batch=500)
    quiet = live(Machine(), 120, of)
    assert quiet.augmented
    # exactly at the end of training
    last = quiet.plan.training + LOADING
    outcome = live(Machine(speed=lambda time: 1.0 if time < last else 0.5), 120, of)
    assert not outcome.augmented
    assert outcome.took <= 125


def test_augmentation_that_does_not_fit_is_skipped() -> None:
    machine, of = Machine(), speed(step=2.0, batch=250)
    machine.work(LOADING)
    budget = Budget(120.0, 0.0, machine.now)
    costly = Ending(test=20.0, augmentation=25.0, rest=1.5)
    assert not make_plan(budget, of, costly, IMAGES).augmented
    cheap = Ending(test=1.0, augmentation=1.5, rest=1.5)
    assert make_plan(budget, of, cheap, IMAGES).augmented
    assert not make_plan(budget, of, cheap, IMAGES, augmented=False).augmented


def test_augmentation_is_compared_with_the_whole_training_time() -> None:
    machine, of = Machine(), speed()
    machine.work(270.0)
    budget = Budget(300.0, 0.0, machine.now)
    end = Ending(test=2.0, augmentation=3.5, rest=1.5)
    assert make_plan(budget, of, end, IMAGES, fewest=0, trained=255.0).augmented
    # more than it would be worth with a budget of only 30 seconds
    assert not make_plan(budget, of, end, IMAGES).augmented


def test_clock_of_budgets_has_a_fine_resolution() -> None:
    # time.monotonic moves in steps of 16 ms in Windows before Python 3.13: too coarse for probes
    assert Budget(1.0, 0.0).now is time.perf_counter
    assert Schedules(Recipe(), 1, print).now is time.perf_counter
    assert RealMachine(0.0).now is time.perf_counter
    for measuring in (best_rate, measure):
        clocks = inspect.signature(measuring).parameters
        (clock,) = (clocks[name] for name in ("now", "clock") if name in clocks)
        assert clock.default is time.perf_counter


def test_too_small_budget_reports_minimum() -> None:
    machine, of = Machine(), speed()
    machine.work(LOADING)
    with pytest.raises(UsageError, match=r"0\.1 minutes is not enough.*--minutes 0\.4") as error:
        make_plan(Budget(6.0, 0.0, machine.now), of, ending(of), IMAGES)
    assert "\n" not in str(error.value)
    outcome = live(Machine(), 60 * 0.4, of)  # which is enough
    assert outcome.steps >= FEWEST_STEPS - 1


def test_resumed_run_continues_at_its_fraction() -> None:
    outcome = live(Machine(), 60, speed(), begun=0.6)
    assert 0.6 <= outcome.shares[0] < 0.61
    assert outcome.shares[-1] > 0.98


@pytest.mark.parametrize(
    ("seconds", "model"),
    [(5, "fast-xs"), (30, "fast-xs"), (120, "fast-s"), (300, "fast-m"), (640, "fast-l")],
)
def test_the_network_grows_with_the_budget(seconds: float, model: str) -> None:
    # images per second on two cores
    rates = {"fast-xs": 1765, "fast-s": 900, "fast-m": 650, "fast-l": 281, "fast-xl": 80}
    speeds = [speed(name, 250 / rate) for name, rate in rates.items()]
    assert choose(speeds, seconds).model == model


def test_a_larger_budget_never_gets_a_smaller_network() -> None:
    speeds = [speed(entry.model, 0.1 * 2**k) for k, entry in enumerate(NETWORKS)]
    order = [entry.model for entry in NETWORKS]
    chosen = [order.index(choose(speeds, seconds).model) for seconds in range(1, 3000, 7)]
    assert chosen == sorted(chosen)


def test_only_candidate_networks_are_measured() -> None:
    flops = dict(zip((entry.model for entry in NETWORKS), (8e7, 2e8, 2.7e8, 7e8, 3e9), strict=True))

    def names(seconds: float) -> list[str]:
        return [entry.model for entry in candidates(flops, 1.7e11, seconds)]

    assert names(1) == ["fast-xs"]
    assert names(100) == ["fast-s", "fast-m"]
    assert names(90_000) == ["fast-xl"]
    assert all(len(names(seconds)) <= 2 for seconds in range(1, 5000, 50))


def test_python_slowdown_is_separate(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    end = Ending(test=2.0, augmentation=2.0, rest=2.0, report=1.0, python=0.01)
    plan = make_plan(Budget(60.0, 0.0, machine.now), speed(step=0.1), end, IMAGES)
    pace = Pace(Budget(60.0, 0.0, machine.now), plan)
    measured = iter([0.012, 0.9])
    monkeypatch.setattr(
        "peewit.training.budget.pace.python_seconds", lambda *_, **__: next(measured)
    )
    position = TrainState()
    assert pace.python_slowdown == 1
    for _ in range(5):  # steps take four times as long
        pace.observe(position)
        position.seconds += 0.4
        position.seen += 250
    pace.observe(position)
    assert pace.slowdown == pytest.approx(4)
    assert pace.python_slowdown == pytest.approx(1.2)
    assert pace.end == pytest.approx(60 - SAFETY * (4 * 4.0 + 1.2 * 3.0))
    # measured again later, and never assumed to be slower than the steps
    machine.time += 10
    pace.measure_python()
    assert pace.python_slowdown == pytest.approx(4)


def test_threads_are_not_changed_near_the_end() -> None:
    machine, used = Machine(), []
    budget, of = Budget(60.0, 0.0, machine.now), speed(step=0.1)
    plan = make_plan(budget, of, ending(of), IMAGES)
    pace = Pace(budget, plan, threads=Threads(2, used.append))
    position = TrainState()

    def steps(count: int) -> None:
        for _ in range(count):
            machine.time += 0.4
            position.seconds += 0.4
            position.seen += of.batch_size
            pace.observe(position)

    pace.observe(position)
    steps(RECENT)
    assert used == [1]
    steps(10)  # no faster: back to two
    assert used == [1, 2]
    machine.time = 56.0
    steps(10)
    assert used == [1, 2]


def test_resumed_seconds_are_not_a_step() -> None:
    machine, of = Machine(), speed(step=0.1)
    budget = Budget(60.0, 0.0, machine.now)
    plan = make_plan(budget, of, ending(of), IMAGES)
    pace = Pace(budget, plan, begun=0.5)
    position = TrainState(seen=50_000, seconds=2000.0)
    for _ in range(3):
        pace.observe(position)
        position.seconds += 0.4
        position.seen += of.batch_size
    assert pace.slowdown == 1  # two steps are not enough to judge
    pace.observe(position)
    assert pace.slowdown == pytest.approx(4)
