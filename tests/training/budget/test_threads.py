"""Adapting the number of threads on a shared machine."""

from __future__ import annotations

from collections.abc import Callable

from peewit.training.budget.threads import LONGEST_PAUSE, RECENT, TRIAL, Threads

USUAL = 0.1


def run(threads: Threads, takes: Callable[[int], float], steps: int) -> list[int]:
    """Run steps that last ``takes(threads)`` seconds; return the numbers of threads."""
    counts = []
    for _ in range(steps):
        counts.append(threads.count)
        threads.stepped(takes(threads.count), USUAL)
    return counts


def waiting(cores: int, taken: int) -> Callable[[int], float]:
    """Return the duration of steps if other processes share ``taken`` of the cores.

    Threads that wait for each other are four times as slow once one of them shares its core.
    """
    return lambda count: USUAL * cores / count * (1 if count <= cores - taken else 4)


def test_idle_machine_keeps_all_threads() -> None:
    used: list[int] = []
    assert set(run(Threads(4, used.append), waiting(4, 0), 500)) == {4}
    assert not used


def test_threads_adapt_to_free_cores() -> None:
    threads = Threads(4, lambda count: None)
    counts = run(threads, waiting(4, 2), 100)
    assert counts[-1] == 2
    assert counts.index(2) <= 3 * (RECENT + TRIAL)


def test_all_threads_are_used_again_when_cores_are_free() -> None:
    threads = Threads(2, lambda count: None)
    assert run(threads, waiting(2, 1), 200)[-1] == 1
    steps = round(LONGEST_PAUSE / USUAL)
    assert run(threads, waiting(2, 0), steps)[-1] == 2


def test_who_starts_with_fewer_threads_soon_tries_all() -> None:
    used: list[int] = []
    threads = Threads(2, used.append, first=1)
    threads.begin()
    # measured with one thread, whose steps take twice as long as those of two on a quiet machine
    for _ in range(RECENT + TRIAL):
        threads.stepped(2 * USUAL / threads.count, 2 * USUAL)
    assert used == [1, 2]
    assert threads.count == 2
    used.clear()
    run_busy = Threads(2, used.append, first=1)
    for _ in range(RECENT + TRIAL):
        run_busy.stepped(waiting(2, 1)(run_busy.count), 2 * USUAL)
    assert run_busy.count == 1


def test_trials_that_gain_nothing_are_short_and_become_rare() -> None:
    used: list[int] = []
    threads = Threads(2, used.append)
    # a processor that is throttled as a whole, like a hot laptop's: one thread is even slower
    counts = run(threads, lambda count: 3 * USUAL * 2 / count, 2000)
    assert used[:2] == [1, 2]
    assert counts.count(1) < 30
    assert counts[-1] == 2


def test_no_trials_near_the_end() -> None:
    threads = Threads(2, lambda count: None)
    for _ in range(50):
        threads.stepped(4 * USUAL, USUAL, tries=False)
    assert threads.count == 2


def test_at_least_one_thread() -> None:
    assert set(run(Threads(1, lambda count: None), lambda count: 9 * USUAL, 100)) == {1}
