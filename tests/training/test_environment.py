"""The number of threads respects a container's limit; the caller's state is restored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peewit.errors import UsageError
from peewit.system import cpu as processor
from peewit.training import environment


def test_container_cpu_limit_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(processor, "CGROUP_LIMIT", limit)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert environment.usable_threads() == 64  # no such file
    for text, threads in [
        ("max 100000", 64),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 64),
        ("rubbish", 64),
    ]:
        limit.write_text(text + "\n")
        assert environment.usable_threads() == threads, text


def test_threads_and_random_state_are_restored_after_a_failure() -> None:
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


def test_processor_name_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPU_INFO", info)
    assert processor.processor_name()
    info.write_text("processor\t: 0\nmodel name\t: Fast One: 3 GHz\n")
    assert processor.processor_name() == "Fast One: 3 GHz"


def test_far_more_threads_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    environment.check_threads(2 * environment.MOST_PER_CORE)
    with pytest.raises(UsageError, match=r"threads is 1,000: this machine has 2 cores, and more"):
        environment.check_threads(1000)
