"""What other programs use of the processor: counted for this process's cores, without its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from peewit.system import load

# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest nice; in 1/100 s
BEFORE = "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 100 0 50 900 7 0 0 0 0 0\ncpu2 10 0 0 900 0 0 0 0 0 0\n"
AFTER = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 125 5 55 950 9 5 10 40 0 0\ncpu2 99 0 0 900 0 0 0 0 0 0\n"


@pytest.fixture
def times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process own core 0, and half a second pass during a measurement."""
    file = tmp_path / "stat"
    file.write_text(BEFORE)
    clock = [10.0]

    def half_a_second(seconds: float) -> None:
        clock[0] += 0.5
        file.write_text(AFTER)

    monkeypatch.setattr(load, "CPU_TIMES", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr("os.sysconf", lambda name: 100, raising=False)
    monkeypatch.setattr("time.sleep", half_a_second)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    return file


def test_work_of_others_on_own_cores_is_counted(
    times: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = iter([3.0, 3.1])
    monkeypatch.setattr(load, "_own_seconds", lambda: next(own))
    # 50 hundredths of work on core 0, 10 of them this process's; steal and waiting do not count
    assert load.cores_used_by_others() == pytest.approx(0.4 / 0.5)


def test_own_work_alone_is_no_load(times: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = iter([3.0, 4.0])
    monkeypatch.setattr(load, "_own_seconds", lambda: next(own))
    assert load.cores_used_by_others() == 0


@pytest.mark.parametrize("content", [None, "", "cpu0 user 1 2\n", "cpu0\n", "intr 7\n"])
def test_a_system_that_does_not_say_counts_as_idle(times: Path, content: str | None) -> None:
    if content is None:
        times.unlink()
    else:
        times.write_text(content)
    assert load.cores_used_by_others() >= 0


def test_no_affinity_counts_as_idle(times: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    assert load.cores_used_by_others() == 0
