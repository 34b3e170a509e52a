"""Comparison of a run with its repetition: weights, history, metrics and environment."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training.checkpoint import read_tensors

# What depends on the clock, and differs between any two runs
TIMES = frozenset(
    {"seconds", "images_per_second", "training_seconds", "gflops", "share_of_best", "best_gflops"}
)
# Stands for a difference in bits alone
SMALLEST = math.ulp(0.0)
# What may change the results: other facts about the environment, such as the date, cannot
RELEVANT = (
    "peewit",
    "torch",
    "numpy",
    "python",
    "platform",
    "processor",
    "vector_features",
    "kernels",
    "threads",
)


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What differs between a run and its repetition.

    Parameters
    ----------
    largest_difference : float
        Of a weight, absolute: 0 if all weights are identical, bit for bit; infinite if one is not a
        number; NaN if the networks are different.
    history : tuple of str
        The columns of the history that differ, without those that contain times.
    metrics : tuple of str
        The metrics that differ, without those that contain times.
    accuracy : tuple of float
        The accuracy of the run, and of its repetition.
    environment : dict
        Facts that may explain a difference, such as versions and processor: the value of the run
        and that of the repetition.
    """

    largest_difference: float
    history: tuple[str, ...]
    metrics: tuple[str, ...]
    accuracy: tuple[float, float]
    environment: dict[str, tuple[Any, Any]]

    @property
    def identical(self) -> bool:
        """Whether weights, history and metrics are the same."""
        return self.largest_difference == 0 and not self.history and not self.metrics

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and ``identical``, ready for JSON; None for NaN and infinity."""
        values = {"identical": self.identical, **asdict(self)}
        if not math.isfinite(self.largest_difference):
            values["largest_difference"] = None
        return values


def compare(run: Run, again: Run) -> Repetition:
    """Compare two finished runs that should be the same.

    Raises
    ------
    PeewitError
        The weights of one of them cannot be read.
    """
    columns = set().union(*run.history, *again.history) - TIMES
    metrics = (run.metrics.keys() | again.metrics.keys()) - TIMES
    before, now = run.environment, again.environment
    return Repetition(
        largest_difference=_largest_difference(run, again),
        history=tuple(
            sorted(name for name in columns if _column(run, name) != _column(again, name))
        ),
        metrics=tuple(
            sorted(name for name in metrics if run.metrics.get(name) != again.metrics.get(name))
        ),
        accuracy=(run.metrics["accuracy"], again.metrics["accuracy"]),
        environment={
            name: (before.get(name), now.get(name))
            for name in RELEVANT
            if before.get(name) != now.get(name)
        },
    )


def _column(run: Run, name: str) -> list[float | None]:
    return [row.get(name) for row in run.history]


def _largest_difference(run: Run, again: Run) -> float:
    first, second = (read_tensors(one.path / runfolder.WEIGHTS)[0] for one in (run, again))
    kinds = [
        {name: (one.shape, one.dtype) for name, one in each.items()} for each in (first, second)
    ]
    if kinds[0] != kinds[1]:
        return math.nan
    return max((_difference(first[name], second[name]) for name in first), default=0.0)


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest absolute difference: 0 only if the bits are the same."""
    if one.numpy().tobytes() == other.numpy().tobytes():
        return 0.0
    difference = (one.double() - other.double()).abs().nan_to_num(nan=math.inf).max().item()
    return max(difference, SMALLEST)  # 0 and -0 are different bits
