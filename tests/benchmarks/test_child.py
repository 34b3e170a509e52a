"""Commands run in their own process, and the facts read from a run."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import child
import pytest

from peewit import Recipe
from peewit.report.final_test import training_costs
from peewit.training.state import TrainState


def test_the_last_line_is_the_report() -> None:
    words = "print('Epoch 1'); print('{\"images\": 5}'); print()"
    assert child.run([sys.executable, "-c", words]).report == {"images": 5}


def test_output_time_and_memory_are_measured() -> None:
    done = child.run([sys.executable, "-c", "import os; print(os.environ['WORD'])"], {"WORD": "hi"})
    assert done.output.strip() == "hi"
    assert done.seconds > 0
    if hasattr(os, "wait4"):
        assert done.peak_memory_mib is not None
        # Linux counts from the fork on, which includes the memory of this process
        import resource

        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        assert 1 < done.peak_memory_mib < max(1000, 2 * own)


def test_a_failure_ends_the_benchmark_with_the_error_output() -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        child.run([sys.executable, "-c", "import sys; sys.exit('no such luck')"])


def test_an_interrupted_benchmark_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def interrupted(process: Any) -> None:
        assert process.poll() is None
        seen.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        child.run([sys.executable, "-c", "input()"])
    assert seen[0].returncode is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_killed_benchmark_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def killed(process: Any) -> None:
        seen.append(process)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(child, "_wait", killed)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            child.run([sys.executable, "-c", "input()"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert seen[0].returncode is not None


def test_facts_cover_the_whole_run() -> None:
    position = TrainState()
    for images, flops, gflops, share in ((90, 20e9, 10.0, 0.5), (225, 50e9, 15.0, 0.75)):
        row = {"images": images, "flops": flops, "gflops": gflops, "share_of_best": share}
        position.add_row({"seconds": 9.0, **row}, 1.0)
    run = SimpleNamespace(
        history=position.history,
        metrics={"accuracy": 0.5, **training_costs(position)},
        recipe=Recipe(),
        dataset={"images": {"training": 90}},
    )
    found = child.facts(run)
    assert found["accuracy"] == found["single_view_accuracy"] == 0.5
    assert (found["epochs"], found["training_images"], found["flops"]) == (2.5, 90, 50e9)
    assert found["training_seconds"] == pytest.approx(4.0)  # without validation
    assert found["gflops"] == pytest.approx(12.5)  # 50 in 2 + 2 seconds
    assert found["best_gflops"] == pytest.approx(20.0)
    assert (found["lr"], found["precision"]) == (1e-3, "float32")
    assert found["share_of_best"] == pytest.approx(0.625)
    # the tutorial's network has no best rate to compare with
    del run.metrics["share_of_best"]
    run.metrics["single_view_accuracy"] = 0.4
    found = child.facts(run)
    assert found["single_view_accuracy"] == 0.4
    assert found["best_gflops"] is found["share_of_best"] is None
