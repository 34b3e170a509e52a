"""The measured frontier is in order, and its two readings agree."""

from __future__ import annotations

import pytest

from peewit.models import MODELS
from peewit.training.frontier import ERRORS, NETWORKS, expected_error, needed_flops


def test_networks_are_there_and_grow() -> None:
    assert [entry.model for entry in NETWORKS] == [name for name in MODELS if "fast-" in name]
    needs = [entry.images for entry in NETWORKS]
    assert needs == sorted(needs)
    assert needs[0] == 0


def test_more_work_never_gives_more_errors() -> None:
    assert list(ERRORS) == sorted(ERRORS)
    flops = [10**power for power in range(9, 20)]
    errors = [expected_error(value) for value in flops]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("flops", "error"), ERRORS)
def test_measured_points_are_kept(flops: float, error: float) -> None:
    assert expected_error(flops) == pytest.approx(error)


@pytest.mark.parametrize("error", [0.6, 0.237, 0.2, 0.15, 0.1, 0.01])
def test_both_readings_agree(error: float) -> None:
    assert expected_error(needed_flops(error)) == pytest.approx(error)
