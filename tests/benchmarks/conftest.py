"""Benchmarks whose training runs are simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import child
import pytest


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """The seeds and arguments of all runs that a benchmark has started; none is executed."""
    started: list[tuple[int, list[str]]] = []

    def train(data: str, seed: int, arguments: list[str]) -> dict[str, Any]:
        started.append((seed, arguments))
        return measured(minutes=float(arguments[1]), seed=seed)

    monkeypatch.setattr(child, "train", train)
    return started


@pytest.fixture
def measurement() -> Callable[..., dict[str, Any]]:
    return measured


def measured(minutes: float = 1.0, seed: int = 0, **other: Any) -> dict[str, Any]:
    """Return a log row whose accuracy grows with the minutes, and a little with the seed."""
    accuracy = round(0.7 + 0.01 * minutes + 0.001 * seed, 6)
    return {
        "minutes": minutes,
        "seed": seed,
        "accuracy": accuracy,
        "single_view_accuracy": accuracy - 0.01,
        "wall_seconds": 60 * minutes - 1,
        "late_seconds": -1.0,
        "training_seconds": 60 * minutes - 6,
        "model": "fast-m",
        "epochs": 3,
        "gflops": 150.0,
        "share_of_best": 0.81,
        "peak_memory_mib": 900.0,
        "processor": "Some CPU",
        "cores": 2,
        "vector_features": "AVX2",
        **other,
    }
