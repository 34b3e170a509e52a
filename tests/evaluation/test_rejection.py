"""The threshold for pictures of no class comes from held-out images only."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.evaluation.rejection import FEWEST, rejection


def confident(shares: list[float]) -> np.ndarray:
    first = np.array(shares)
    return np.log(np.stack([first, 1 - first], axis=1)).astype(np.float32)


def test_95_percent_of_the_held_out_images_are_accepted() -> None:
    held_out = confident(list(np.linspace(0.6, 0.99, 200)))
    found = rejection(held_out, held_out, np.zeros(200, np.int64))
    assert found["images"] == 200
    assert found["rejected"] == pytest.approx(0.05)


def test_the_tested_images_do_not_move_the_threshold() -> None:
    held_out = confident([0.8] * 50)
    labels = np.array([0, 0, 0, 1])
    found = rejection(held_out, confident([0.7, 0.7, 0.9, 0.95]), labels)
    assert found["threshold"] == pytest.approx(0.8)
    assert found["rejected"] == 0.5
    assert found["accuracy"] == 0.5  # of the two that are accepted


def test_no_accuracy_if_all_are_rejected() -> None:
    found = rejection(confident([0.9] * 50), confident([0.6]), np.array([0]))
    assert found["rejected"] == 1
    assert found["accuracy"] is None


def test_no_threshold_from_too_few_images() -> None:
    few = confident([0.9] * (FEWEST - 1))
    assert not rejection(few, few, np.zeros(len(few), np.int64))
