"""Fixtures for the tests of the plots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure

from peewit.plots import confusion, curves, reliability
from peewit.plots.style import drawing


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are drawn."""
    kept = []

    @contextmanager
    def keeping(*arguments: Any) -> Iterator[Figure]:
        with drawing(*arguments) as figure:
            kept.append(figure)
            yield figure

    for module in (confusion, curves, reliability):
        monkeypatch.setattr(module, "drawing", keeping)
    return kept
