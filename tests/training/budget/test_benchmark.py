"""Measuring a machine: the arithmetic, on simulated clocks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from made_data import noise
from peewit.data.dataset import Dataset
from peewit.models.flops import training_flops
from peewit.models.registry import build
from peewit.training.budget import benchmark
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState

FAST = Recipe.preset("fast", model="fast-xs", batch_size=8)


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that advances by ``seconds`` with each reading."""
    ticks = count()
    return lambda: next(ticks) * seconds


def test_the_best_rate_is_that_of_the_fastest_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SHAPES", ((1, 2, 3, 4), (2, 4, 8, 8)))
    # each convolution takes a tick of this clock
    assert benchmark.best_rate(0.1, clock=ticking(0.01)) == pytest.approx(
        2 * 9 * 4 * 8 * 8 * 8 * 2 / 0.01
    )


@pytest.mark.parametrize(
    ("threads", "seconds", "fastest"),
    [
        (1, {1: 0.2}, 1),
        (2, {1: 0.2, 2: 0.1}, 2),
        (2, {1: 0.2, 2: 0.5}, 1),  # a core is taken, and the threads wait for each other
        (4, {1: 0.4, 2: 0.2, 3: 0.6, 4: 0.5}, 2),
    ],
)
def test_threads_that_would_wait_for_a_core_are_left_out(
    monkeypatch: pytest.MonkeyPatch, threads: int, seconds: dict[int, float], fastest: int
) -> None:
    monkeypatch.setattr(benchmark, "SHAPES", ((1, 1, 1, 1),) * 3)
    used: list[int] = []
    time, calls = [0.0], [0]

    def clock() -> float:
        calls[0] += 1
        time[0] += seconds[used[-1]] * (calls[0] % 2 == 0)
        return time[0]

    assert benchmark.fastest_count(threads, used.append, clock) == fastest
    assert used[-1] == fastest
    assert calls[0] < 60


def steps(schedule: benchmark._FewSteps, seconds: list[float]) -> int:
    """Run steps of these durations until the schedule ends; return their number."""
    state = TrainState()
    for made, took in enumerate(seconds):
        schedule.observe(state)
        if schedule.is_over(state):
            return made
        state.seen += 8
        state.seconds += took
        if made == 1:  # a row of the history resets the seconds
            schedule.observe(state)
            state.seconds = 0.0
    return len(seconds)


def test_steps_are_measured_until_their_time_settles() -> None:
    schedule = benchmark._FewSteps(100.0, lambda: 0.0)
    assert steps(schedule, [1.0, 0.5, 0.4, 0.41, 0.4, 0.42, 0.4, 0.4]) == 6
    assert schedule.usual == pytest.approx(0.4)
    assert schedule.steps[:3] == pytest.approx([1.0, 0.5, 0.4])


def test_number_of_measured_steps_is_limited() -> None:
    schedule = benchmark._FewSteps(100.0, lambda: 0.0)
    assert steps(schedule, [0.9**n for n in range(50)]) == benchmark.STEPS


def test_at_least_one_step_is_measured() -> None:
    schedule = benchmark._FewSteps(0.0, lambda: 0.0)
    assert steps(schedule, [1.0, 0.5]) == 1
    assert schedule.usual == 1.0


@pytest.mark.parametrize("recipe", [FAST, FAST.replace(schedule="constant"), Recipe(batch_size=8)])
def test_speed_of_a_network_is_measured(recipe: Recipe) -> None:
    speed = benchmark.measure(noise(60, 32), recipe, 0.0)
    assert (speed.model, speed.batch_size) == (recipe.model, 8)
    assert speed.step > 0
    assert speed.inference > 0
    model = build(recipe.model, (32, 32, 3), 3, 0)
    if recipe == FAST:  # the whitening layer is frozen, as in most of the training
        model.get_parameter("whitening.bias").requires_grad_(False)
    assert speed.flops == 8 * training_flops(model, (32, 32, 3))


@pytest.mark.parametrize(
    "data", [noise(4, 8), noise(9, 1, 1), noise(150, 8, classes=100), noise(8, 90)]
)
def test_unusual_data_is_measured_too(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PIXELS", 20_000)  # two large images, which are repeated
    speed = benchmark.measure(data, FAST, 0.0)
    assert speed.batch_size == 8
    assert speed.step > 0


@pytest.mark.parametrize(
    ("cores", "used", "threads"),
    [(2, 0.0, 2), (2, 0.7, 2), (2, 0.99, 1), (2, 2.0, 1), (8, 1.0, 7), (8, 3.2, 5), (64, 60.0, 4)],
)
def test_cores_that_others_use_get_no_thread(
    monkeypatch: pytest.MonkeyPatch, cores: int, used: float, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(benchmark, "usable_threads", lambda: cores)
    monkeypatch.setattr(benchmark, "own_cores", lambda: cores)
    monkeypatch.setattr(benchmark, "cores_used_by_others", lambda: used)
    assert benchmark.Machine(0.0).free_threads() == threads


def test_a_number_of_threads_from_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(benchmark, "usable_threads", lambda: 2)
    monkeypatch.setattr(benchmark, "cores_used_by_others", lambda: 2.0)
    assert benchmark.Machine(0.0).free_threads() == 2


def test_a_container_beside_busy_ones_uses_its_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(benchmark, "usable_threads", lambda: 2)  # of the host's 64
    monkeypatch.setattr(benchmark, "own_cores", lambda: 64)
    monkeypatch.setattr(benchmark, "cores_used_by_others", lambda: 40.0)
    assert benchmark.Machine(0.0).free_threads() == 2
