"""Threads within what the machine has, and the caller's state left alone."""

from __future__ import annotations

import pytest
import torch

from peewit.errors import UsageError
from peewit.training import environment


def test_threads_and_random_numbers_are_put_back_after_a_failure() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def work() -> None:
        with environment.isolated(threads + 1):
            assert torch.get_num_threads() == threads + 1
            torch.manual_seed(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_description_names_versions_and_processor() -> None:
    facts = environment.describe(threads=3)
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == 3
    assert facts["processor"]
    assert facts["vector_features"]


def test_far_more_threads_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    environment.check_threads(2 * environment.MOST_PER_CORE)
    with pytest.raises(
        UsageError, match=r"threads is 1,000: this machine has 2 cores, and threads beyond"
    ):
        environment.check_threads(1000)
