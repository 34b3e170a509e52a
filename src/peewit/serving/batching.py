"""Requests that arrive together are computed together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """A thread that computes whatever waits, up to ``size`` items at a time.

    Nothing waits for others to come: a lone item is computed at once, and while it is, those that
    arrive gather for the next batch. So batches grow with the load, and only with the load.

    Parameters
    ----------
    compute : function
        From up to ``size`` items to as many answers. Runs in the thread.
    size : int
        Most items of a batch.

    Examples
    --------
    >>> async def ask():
    ...     doubles = Batcher(lambda numbers: [2 * number for number in numbers], size=2)
    ...     future = asyncio.get_running_loop().create_future()
    ...     doubles.submit([1, 2, 3], future)
    ...     answers = await future
    ...     doubles.close()
    ...     return answers
    >>> asyncio.run(ask())
    [2, 4, 6]
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        size: int,
    ) -> None:
        self._compute, self._size = compute, size
        self._jobs: deque[_Job[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="peewit-compute", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item], future: asyncio.Future[list[Answer]]) -> None:
        """Put the answers to ``items``, in order, or what went wrong, into ``future``.

        May be called from any thread. If the future is cancelled, what is not computed by then
        never is.

        Raises
        ------
        RuntimeError
            ``close`` has been called.
        """
        job = _Job(items, future)
        if not items:
            deliver([job])
            return
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """How many items wait to be computed."""
        with self._changed:
            return sum(len(job.items) - job.taken for job in self._jobs)

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while shares := self._next():
            items = [item for _, share in shares for item in share]
            answers: list[Answer] = []
            failure: BaseException | None = None
            try:
                answers = list(self._compute(items))
            except BaseException as error:
                # whatever it was, those who wait must hear of it, and the thread must go on
                failure = error
            place, ended = 0, []
            for job, share in shares:
                if job.add(answers[place : place + len(share)], failure):
                    ended.append(job)
                place += len(share)
            deliver(ended)

    def _next(self) -> list[tuple[_Job[Item, Answer], Sequence[Item]]]:
        """Wait for work; return up to ``size`` items, each job's share, none at the end."""
        with self._changed:
            while True:
                # those who hung up or failed want no more answers
                while self._jobs and (self._jobs[0].future.done() or self._jobs[0].error):
                    self._jobs.popleft()
                if self._jobs or self._closed:
                    break
                self._changed.wait()
            shares, room = [], self._size
            while self._jobs and room:
                job = self._jobs[0]
                share = job.items[job.taken : job.taken + room]
                job.taken += len(share)
                room -= len(share)
                shares.append((job, share))
                if job.taken == len(job.items):
                    self._jobs.popleft()
            return shares


class _Job(Generic[Item, Answer]):
    """The items of one request, how many of them were taken, and what is known of them."""

    def __init__(self, items: Sequence[Item], future: asyncio.Future[list[Answer]]) -> None:
        self.items, self.future = items, future
        self.taken = 0
        self.answers: list[Answer] = []
        self.error: BaseException | None = None

    def add(self, answers: Sequence[Answer], error: BaseException | None) -> bool:
        """Take the next answers, or an error; return whether that is all."""
        self.answers.extend(answers)
        self.error = error
        return error is not None or len(self.answers) == len(self.items)


def deliver(jobs: Sequence[_Job[Item, Answer]]) -> None:
    """Hand over finished jobs, waking their loop once for all of them."""

    def in_loop() -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.answers)

    if jobs:
        jobs[0].future.get_loop().call_soon_threadsafe(in_loop)
