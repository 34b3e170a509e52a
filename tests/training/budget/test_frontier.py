"""The measured frontier is monotonic, between its points too."""

from __future__ import annotations

from itertools import pairwise

import pytest

from peewit.models.registry import HALF, MODELS
from peewit.training.budget.frontier import ERRORS, NETWORKS, needed_flops


def test_networks_are_registered_and_ordered_by_size() -> None:
    assert [entry.model for entry in NETWORKS] == [
        name for name in MODELS if "fast-" in name and not name.endswith(HALF)
    ]
    needs = [entry.images for entry in NETWORKS]
    assert needs == sorted(needs)
    assert needs[0] == 0


def test_lower_errors_need_more_operations() -> None:
    assert list(ERRORS) == sorted(ERRORS)
    needed = [needed_flops(error / 100) for error in range(95, 0, -1)]
    assert needed == sorted(set(needed))


@pytest.mark.parametrize(("flops", "error"), ERRORS)
def test_measured_points_are_reproduced(flops: float, error: float) -> None:
    assert needed_flops(error) == pytest.approx(flops)


def test_error_is_a_power_of_the_operations() -> None:
    for (few, high), (many, low) in pairwise(ERRORS):
        assert needed_flops((high * low) ** 0.5) == pytest.approx((few * many) ** 0.5)
    (few, high), (many, low) = ERRORS[:2]
    assert needed_flops(high**2 / low) == pytest.approx(few**2 / many)
    (few, high), (many, low) = ERRORS[-2:]
    assert needed_flops(low**2 / high) == pytest.approx(many**2 / few)
