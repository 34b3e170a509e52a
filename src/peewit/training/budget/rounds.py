"""Training until an accuracy is reached: how long each attempt should be. No PyTorch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from peewit.errors import PeewitError
from peewit.training.budget.frontier import needed_flops

# A prediction is good to a fifth, and falling short costs another round.
MARGIN = 1.2
# Beyond the measured points the frontier is a guess; nothing here gets fewer wrong than this.
FEWEST_ERRORS = 0.02
SHORTEST = 5.0  # seconds
# What another round may be longer than the one before.
LEAST_GROWTH, MOST_GROWTH = 1.5, 4.0
MOST_ROUNDS = 6
# So many rounds in a row that do not get better by so much are enough.
PATIENCE, BETTER = 3, 0.001


def not_reached(target: float, why: str, todo: str) -> PeewitError:
    """Return the error of a training that was given up before it reached ``target``."""
    return PeewitError(f"{target:.1%} of the held-out images right was not reached", why, todo)


class Round(NamedTuple):
    """A schedule from warm rates to zero: how long it was, and what accuracy it came to."""

    seconds: float
    accuracy: float


def next_round(target: float, rounds: Sequence[Round], rate: float) -> float | None:
    """Return how many seconds to train next, or None when it is time to give up.

    Parameters
    ----------
    target : float
        The accuracy on held-out images that is wanted.
    rounds : sequence of Round
        What was done before, none of which reached it.
    rate : float
        Operations a second in training.

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
    # How hard this data is was unknown before; how errors fall with work is as elsewhere.
    done = needed_flops(max(1 - accuracies[-1], FEWEST_ERRORS))
    growth = MARGIN * needed_flops(wanted) / done
    return rounds[-1].seconds * min(max(growth, LEAST_GROWTH), MOST_GROWTH)
