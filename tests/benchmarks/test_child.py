"""Commands in a process of their own, and what is read of a run."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import child
import pytest


def test_output_time_and_memory() -> None:
    done = child.run([sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": "hi"})
    assert done.output.strip() == "hi"
    assert done.seconds > 0
    if hasattr(os, "wait4"):
        assert done.peak_memory_mib is not None
        assert 1 < done.peak_memory_mib < 1000


def test_a_failure_ends_the_benchmark_and_says_why() -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        child.run([sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_meanwhile_sees_the_running_process_and_leaves_none_behind() -> None:
    seen = []

    def interrupted(process: Any) -> None:
        assert process.poll() is None
        seen.append(process)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run([sys.executable, "-c", "input()"], meanwhile=interrupted)
    assert seen[0].returncode is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM")
def test_a_killed_benchmark_leaves_no_process_behind() -> None:
    seen = []

    def killed(process: Any) -> None:
        seen.append(process)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            child.run([sys.executable, "-c", "input()"], meanwhile=killed)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert seen[0].returncode is not None


def row(seconds: float, **more: float) -> dict[str, float]:
    return {"seconds": seconds, **more}


def test_training_seconds_leave_validation_out_where_operations_are_counted() -> None:
    assert child.training_seconds([row(3.0), row(4.0)]) == 7.0
    # 20 GFLOP at 10 GFLOP/s, then 30 more at 15
    history = [row(3.0, flops=20e9, gflops=10.0), row(4.0, flops=50e9, gflops=15.0)]
    assert child.training_seconds(history) == pytest.approx(4.0)


@pytest.fixture
def run() -> SimpleNamespace:
    return SimpleNamespace(
        history=[row(3.0)],
        metrics={"accuracy": 0.5},
        recipe=SimpleNamespace(model="tutorial", image_size=None, batch_size=32),
        dataset={"images": {"training": 90}},
    )


def test_facts_of_a_recipe_without_augmented_test(run: SimpleNamespace) -> None:
    found = child.facts(run)
    assert found["accuracy"] == found["single_view_accuracy"] == 0.5
    assert found["gflops"] is found["best_gflops"] is found["share_of_best"] is None
    assert found["epochs"] == 1
    run.metrics["single_view_accuracy"] = 0.4
    assert child.facts(run)["single_view_accuracy"] == 0.4


def test_facts_are_those_of_the_whole_run(run: SimpleNamespace) -> None:
    run.history = [
        row(3.0, images=90, flops=20e9, gflops=10.0, share_of_best=0.5),
        row(4.0, images=225, flops=50e9, gflops=15.0, share_of_best=0.75),
    ]
    found = child.facts(run)
    assert found["epochs"] == 2.5
    assert found["gflops"] == pytest.approx(12.5)  # 50 in 2 + 2 seconds
    assert found["best_gflops"] == pytest.approx(20.0)
    assert found["share_of_best"] == pytest.approx(0.625)
