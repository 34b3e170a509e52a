"""Copies of a picture stay together, however many pictures there are."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.data import division
from peewit.data.dataset import Dataset


@pytest.mark.parametrize("most", [5, 100])
def test_copies_stay_together(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(division, "COMPARED", most)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    images[9] = images[2]  # in the test part
    images[5] = images[1]
    labels = np.arange(12) % 2
    train = Dataset(images[:8], labels[:8], ["a", "b"])
    test = Dataset(images[8:], labels[8:], ["a", "b"])
    notes: list[str] = []
    train, grouped = division.with_near_duplicates(train, test, notes.append)
    assert grouped is not None
    assert train.groups is not None
    assert grouped.groups is not None
    groups = [*train.groups, *grouped.groups]
    assert groups[9] == groups[2]
    assert groups[5] == groups[1]
    assert len(set(groups)) == 10
    assert len(notes) == (most < 12)
