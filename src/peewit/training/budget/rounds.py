"""Training to a target accuracy: how long each round should be. No PyTorch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from peewit.errors import PeewitError
from peewit.training.budget.frontier import needed_flops

# The predicted length is within 20 % of the true one, and falling short costs another round.
MARGIN = 1.2
# Beyond the measured points the frontier is extrapolated, but not below the lowest plausible error.
FEWEST_ERRORS = 0.02
SHORTEST = 5.0  # seconds
# The ratio of a round's length to that of the previous one.
LEAST_GROWTH, MOST_GROWTH = 1.5, 4.0
MOST_ROUNDS = 6
# Give up after this many rounds that improve the accuracy by less than BETTER.
PATIENCE, BETTER = 3, 0.001


def not_reached(target: float, why: str, todo: str) -> PeewitError:
    """Return the error for a run that gave up before it reached ``target``."""
    return PeewitError(f"a validation accuracy of {target:.1%} was not reached", why, todo)


class Round(NamedTuple):
    """A schedule from the initial learning rate to zero: its length and the final accuracy."""

    seconds: float
    accuracy: float


def next_round(target: float, rounds: Sequence[Round], rate: float) -> float | None:
    """Return how many seconds to train next, or None to give up.

    Parameters
    ----------
    target : float
        The validation accuracy to reach.
    rounds : sequence of Round
        The earlier rounds, none of which reached it.
    rate : float
        Floating-point operations per second in training.

    Examples
    --------
    >>> round(next_round(0.831, [], rate=2e11))
    150
    >>> round(next_round(0.831, [Round(150, 0.82)], rate=2e11))
    259
    >>> next_round(0.831, [Round(100, 0.82)] * 4, rate=2e11) is None
    True
    """
    wanted = max(1 - target, FEWEST_ERRORS)
    if not rounds:
        return max(SHORTEST, MARGIN * needed_flops(wanted) / rate)
    accuracies = [done.accuracy for done in rounds]
    tired = len(rounds) > PATIENCE and (
        max(accuracies[-PATIENCE:]) < max(accuracies[:-PATIENCE]) + BETTER
    )
    if tired or len(rounds) >= MOST_ROUNDS:
        return None
    # The first rounds show how hard this data is; the slope of the frontier is assumed equal.
    done = needed_flops(max(1 - accuracies[-1], FEWEST_ERRORS))
    growth = MARGIN * needed_flops(wanted) / done
    return rounds[-1].seconds * min(max(growth, LEAST_GROWTH), MOST_GROWTH)
