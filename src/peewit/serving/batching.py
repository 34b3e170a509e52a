"""Requests that arrive together are computed together, in one thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """One thread that computes whatever waits, up to ``size`` items at a time.

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
    >>> doubles = Batcher(lambda numbers: [2 * number for number in numbers], size=2)
    >>> doubles.submit([1, 2, 3]).result()
    [2, 4, 6]
    >>> doubles.close()
    """

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Answer]], *, size: int) -> None:
        self._compute, self._size = compute, size
        # what is left of each request, and where its answers gather
        self._waiting: deque[_Job[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="peewit-compute", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item]) -> Future[list[Answer]]:
        """Return what will hold the answers to ``items``, in order.

        Raises
        ------
        RuntimeError
            ``close`` has been called.
        """
        job = _Job[Item, Answer](items)
        if not items:
            job.future.set_result([])
            return job.future
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    @property
    def waiting(self) -> int:
        """How many items wait to be computed."""
        with self._changed:
            return sum(len(job.items) - job.taken for job in self._waiting)

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while shares := self._next():
            items = [item for job, first, end in shares for item in job.items[first:end]]
            try:
                answers = list(self._compute(items))
            except BaseException as error:
                # whatever it was, those who wait must hear of it, and the thread must go on
                for job, _, _ in shares:
                    job.fail(error)
                continue
            place = 0
            for job, first, end in shares:
                job.answer(answers[place : place + end - first])
                place += end - first

    def _next(self) -> list[tuple[_Job[Item, Answer], int, int]]:
        """Wait for work; return (job, first, end) of up to ``size`` items, none at the end."""
        with self._changed:
            while True:
                self._drop_cancelled()
                if self._waiting or self._closed:
                    break
                self._changed.wait()
            shares, room = [], self._size
            while self._waiting and room:
                job = self._waiting[0]
                first = job.taken
                job.taken = min(len(job.items), first + room)
                room -= job.taken - first
                shares.append((job, first, job.taken))
                if job.taken == len(job.items):
                    self._waiting.popleft()
            return shares

    def _drop_cancelled(self) -> None:
        # somebody who has hung up wants no answer
        while self._waiting and self._waiting[0].future.cancelled():
            self._waiting.popleft()


class _Job(Generic[Item, Answer]):
    """The items of one request."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.taken = 0
        self.answers: list[Answer] = []
        self.future: Future[list[Answer]] = Future()

    def answer(self, answers: Sequence[Answer]) -> None:
        self.answers.extend(answers)
        if len(self.answers) == len(self.items) and self.future.set_running_or_notify_cancel():
            self.future.set_result(self.answers)

    def fail(self, error: BaseException) -> None:
        # the rest of its items fail too, but it hears of the first failure only
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
