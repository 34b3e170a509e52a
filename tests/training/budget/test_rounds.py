"""Training to a target accuracy, on data as hard as CIFAR-10, harder, easier, impossible."""

from __future__ import annotations

from itertools import pairwise

import pytest

from peewit.training.budget.frontier import needed_flops
from peewit.training.budget.rounds import MOST_GROWTH, MOST_ROUNDS, Round, next_round

RATE = 1.5e11


def expected_error(flops: float) -> float:
    """Return the error that this number of operations reaches: the inverse of ``needed_flops``."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if needed_flops(middle) < flops else (middle, high)
    return high


def trained(target: float, hardness: float, ceiling: float = 1.0) -> list[Round]:
    """Train on data with ``hardness`` times the error, which is at least 1 - ceiling."""
    rounds: list[Round] = []
    while (seconds := next_round(target, rounds, RATE)) is not None:
        error = min(0.95, hardness * expected_error(seconds * RATE))
        rounds.append(Round(seconds, min(1 - error, ceiling)))
        if rounds[-1].accuracy >= target:
            break
    return rounds


@pytest.mark.parametrize("target", [0.5, 0.75, 0.8, 0.85, 0.9])
def test_measured_data_needs_one_round(target: float) -> None:
    (only,) = trained(target, hardness=1.0)
    assert only.accuracy >= target
    assert only.seconds < 12 * 3600


@pytest.mark.parametrize("target", [0.7, 0.8])
def test_harder_data_needs_longer_rounds(target: float) -> None:
    rounds = trained(target, hardness=1.3)
    assert rounds[-1].accuracy >= target
    assert 2 <= len(rounds) <= 4
    lengths = [done.seconds for done in rounds]
    assert lengths == sorted(lengths)
    assert all(b <= MOST_GROWTH * a for a, b in pairwise(lengths))


def test_gives_up_without_improvement() -> None:
    rounds = trained(0.9, hardness=1.0, ceiling=0.7)
    assert len(rounds) == 4


@pytest.mark.parametrize("target", [0.999, 1.0])
def test_gives_up_on_impossible_targets(target: float) -> None:
    assert len(trained(target, hardness=3.0)) <= MOST_ROUNDS


def test_low_targets_have_a_minimum_length() -> None:
    seconds = next_round(0.01, [], RATE)
    assert seconds is not None
    assert seconds >= 5
