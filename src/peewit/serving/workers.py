"""The threads: several decode pictures, and one passes them through the network in batches."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from peewit.errors import PeewitError
from peewit.images import reader
from peewit.images.reader import TooManyPixels
from peewit.serving.body import Upload
from peewit.serving.engine import Engine, Output, Prepared
from peewit.system.cpu import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Decoding:
    """The pictures of one request, and how far they are decoded.

    Attributes
    ----------
    uploads : sequence of Upload
    explain : bool
        Whether heat maps are requested.
    future : asyncio.Future
        Receives the outputs for the readable pictures. If it is done earlier, the request
        was abandoned.
    prepared : list of Prepared or PeewitError
        The results so far, in the order of the uploads.
    """

    uploads: Sequence[Upload]
    explain: bool
    future: asyncio.Future[list[Output]]
    prepared: list[Prepared | PeewitError] = field(default_factory=list)


class Decoders:
    """Threads that decode and preprocess pictures, each thread one request at a time.

    A picture of 50 megapixels takes seconds and some hundred megabytes. Requests with large
    pictures continue in a thread of their own, one after the other, so that they do not hold up
    the others.

    Parameters
    ----------
    engine : Engine
    limit : int
        Pixels that one picture may declare.
    hand_on : callable
        Called in a decoding thread with the readable pictures of a request, and its future.
    """

    def __init__(
        self,
        engine: Engine,
        limit: int,
        hand_on: Callable[[list[Prepared], asyncio.Future[list[Output]]], None],
    ) -> None:
        self._engine, self._limit, self._hand_on = engine, limit, hand_on
        self._threads = ThreadPoolExecutor(usable_cores(), "peewit-decode")
        self._large_thread = ThreadPoolExecutor(1, "peewit-decode-large")
        self._closed = False

    def submit(self, decoding: Decoding) -> None:
        """Queue the pictures of a request."""
        self._threads.submit(self._decode, decoding, min(reader.LARGE, self._limit))

    def close(self) -> None:
        """Stop each thread after its current picture, and abandon everything that is queued."""
        self._closed = True
        self._threads.shutdown(cancel_futures=True)
        self._large_thread.shutdown(cancel_futures=True)

    def _decode(self, decoding: Decoding, limit: int) -> None:
        """Decode the remaining pictures of a request, of up to ``limit`` pixels in this thread."""
        try:
            for upload in decoding.uploads[len(decoding.prepared) :]:
                if self._closed or decoding.future.done():
                    return
                try:
                    picture = self._engine.prepare(upload, decoding.explain, limit)
                except TooManyPixels as error:  # raised before anything is decoded
                    if limit < self._limit:
                        self._large_thread.submit(self._decode, decoding, self._limit)
                        return
                    decoding.prepared.append(error)
                except PeewitError as error:
                    decoding.prepared.append(error)
                else:
                    decoding.prepared.append(picture)
            readable = [picture for picture in decoding.prepared if isinstance(picture, Prepared)]
            self._hand_on(readable, decoding.future)
        except BaseException as error:
            # the client would wait forever otherwise
            decoding.future.get_loop().call_soon_threadsafe(fail, decoding.future, error)
            raise


def fail(future: asyncio.Future[list[Output]], error: BaseException) -> None:
    """Set the exception of a future that is not done yet. Call it in the future's loop."""
    if not future.done():
        future.set_exception(error)


class Batcher(Generic[Item, Result]):
    """A thread that computes queued items in batches of up to ``size``.

    A lone item is computed at once, without waiting for others. Items that arrive during the
    computation form the next batch, so batches grow with the load.

    Parameters
    ----------
    compute : function
        From up to ``size`` items to as many results. Runs in the thread.
    size : int
        Largest batch.

    Examples
    --------
    >>> async def ask():
    ...     doubles = Batcher(lambda numbers: [2 * number for number in numbers], size=2)
    ...     future = asyncio.get_running_loop().create_future()
    ...     doubles.submit([1, 2, 3], future)
    ...     results = await future
    ...     doubles.close()
    ...     return results
    >>> asyncio.run(ask())
    [2, 4, 6]
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        size: int,
    ) -> None:
        self._compute, self._size = compute, size
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="peewit-compute", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item], future: asyncio.Future[list[Result]]) -> None:
        """Queue items; ``future`` receives their results, in order, or the exception.

        May be called from any thread. If the future is cancelled, the remaining items are not
        computed.

        Raises
        ------
        RuntimeError
            ``close`` has been called.
        """
        job = _Job(items, future)
        if not items:
            _deliver([job])
            return
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Number of queued items."""
        with self._changed:
            return sum(len(job.items) - job.taken for job in self._jobs)

    def close(self) -> None:
        """Compute the queued items, then stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            items = [item for _, part in batch for item in part]
            results: list[Result] = []
            failure: BaseException | None = None
            try:
                results = list(self._compute(items))
            except BaseException as error:
                # the clients must get a response, and the thread must not end
                failure = error
            start, finished = 0, []
            for job, part in batch:
                if job.add(results[start : start + len(part)], failure):
                    finished.append(job)
                start += len(part)
            _deliver(finished)

    def _next_batch(self) -> list[tuple[_Job[Item, Result], Sequence[Item]]]:
        """Wait for items; return up to ``size``, with the job of each part; [] after ``close``."""
        with self._changed:
            while True:
                # drop jobs that were cancelled or have failed
                while self._jobs and (self._jobs[0].future.done() or self._jobs[0].error):
                    self._jobs.popleft()
                if self._jobs or self._closed:
                    break
                self._changed.wait()
            batch, room = [], self._size
            while self._jobs and room:
                job = self._jobs[0]
                part = job.items[job.taken : job.taken + room]
                job.taken += len(part)
                room -= len(part)
                batch.append((job, part))
                if job.taken == len(job.items):
                    self._jobs.popleft()
            return batch


class _Job(Generic[Item, Result]):
    """The items of one request, how many of them were taken, and the results so far."""

    def __init__(self, items: Sequence[Item], future: asyncio.Future[list[Result]]) -> None:
        self.items, self.future = items, future
        self.taken = 0
        self.results: list[Result] = []
        self.error: BaseException | None = None

    def add(self, results: Sequence[Result], error: BaseException | None) -> bool:
        """Add the next results, or an error; return whether the job is finished."""
        self.results.extend(results)
        self.error = error
        return error is not None or len(self.results) == len(self.items)


def _deliver(jobs: Sequence[_Job[Item, Result]]) -> None:
    """Set the futures of finished jobs, waking their loop once for all of them."""

    def set_futures() -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.results)

    if jobs:
        jobs[0].future.get_loop().call_soon_threadsafe(set_futures)
