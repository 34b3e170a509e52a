"""The threads that decode, and the thread that computes batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from peewit.images import reader
from peewit.images.reader import TooManyPixels
from peewit.serving.body import Upload
from peewit.serving.engine import Engine, Output, Prepared
from peewit.serving.workers import Batcher, Decoders, Decoding
from peewit.system.cpu import usable_cores

SMALL, LARGE = Upload("small", b"s"), Upload("large", b"l")


class SlowEngine(Engine):
    """An engine that blocks on a large picture until ``may_end`` is set."""

    def __init__(self) -> None:
        self.may_end, self.started = threading.Event(), threading.Semaphore(0)
        self.seen: list[str] = []

    def prepare(self, upload: Upload, explain: bool, limit: int) -> Prepared:
        if upload is LARGE:
            if limit <= reader.LARGE:
                raise TooManyPixels("too large")
            self.started.release()
            assert self.may_end.wait(60)
        self.seen.append(upload.name)
        return Prepared(np.zeros(1), 1, 1, explain)


class Setup:
    """Decoders with a slow engine, and the event loop of the clients."""

    def __init__(self, limit: int = 10 * reader.LARGE) -> None:
        self.loop, self.engine = asyncio.new_event_loop(), SlowEngine()
        self.handed: list[list[Prepared]] = []
        self.ready = threading.Semaphore(0)
        self.decoders = Decoders(self.engine, limit, self.hand_on)

    def hand_on(self, readable: list[Prepared], future: asyncio.Future[list[Output]]) -> None:
        self.handed.append(readable)
        self.ready.release()

    def submit(self, *uploads: Upload) -> Decoding:
        decoding = Decoding(uploads, False, self.loop.create_future())
        self.decoders.submit(decoding)
        return decoding

    def close(self) -> None:
        self.engine.may_end.set()
        self.decoders.close()
        self.loop.close()


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.close()


def test_large_pictures_do_not_hold_up_small_ones(setup: Setup) -> None:
    large = [setup.submit(LARGE, SMALL) for _ in range(usable_cores() + 1)]
    assert setup.engine.started.acquire(timeout=60)
    setup.submit(SMALL, SMALL)
    assert setup.ready.acquire(timeout=60)
    assert [len(readable) for readable in setup.handed] == [2]
    # only one large picture is decoded at a time
    assert not setup.engine.started.acquire(timeout=0.1)
    setup.engine.may_end.set()
    for _ in large:
        assert setup.ready.acquire(timeout=60)
    assert [len(readable) for readable in setup.handed] == [2] * (1 + len(large))
    assert all(len(decoding.prepared) == 2 for decoding in large)


def test_cancelled_requests_are_not_decoded(setup: Setup) -> None:
    cancelled = setup.submit(LARGE, SMALL, SMALL)
    waiting = setup.submit(LARGE)
    assert setup.engine.started.acquire(timeout=60)
    cancelled.future.cancel()
    setup.engine.may_end.set()
    assert setup.ready.acquire(timeout=60)
    assert setup.engine.seen == ["large", "large"]
    assert len(waiting.prepared) == 1


def test_close_waits_only_for_the_current_picture(setup: Setup) -> None:
    setup.submit(LARGE, SMALL)
    setup.submit(LARGE)
    assert setup.engine.started.acquire(timeout=60)
    closing = threading.Thread(target=setup.decoders.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    setup.engine.may_end.set()
    closing.join(60)
    assert setup.engine.seen == ["large"]
    assert setup.handed == []


def test_errors_keep_their_place_among_the_pictures() -> None:
    setup = Setup(limit=reader.LARGE)
    decoding = setup.submit(SMALL, LARGE, SMALL)
    assert setup.ready.acquire(timeout=60)
    setup.close()
    kinds = [type(picture) for picture in decoding.prepared]
    assert kinds == [Prepared, TooManyPixels, Prepared]
    assert len(setup.handed[0]) == 2


def test_an_unexpected_exception_reaches_the_client(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(upload: Upload, explain: bool, limit: int) -> Prepared:
        raise ZeroDivisionError

    monkeypatch.setattr(setup.engine, "prepare", broken)
    decoding = setup.submit(SMALL)
    with pytest.raises(ZeroDivisionError):
        setup.loop.run_until_complete(asyncio.wait_for(decoding.future, 60))


async def ask(batcher: Batcher[int, int], items: Sequence[int]) -> list[int]:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    batcher.submit(items, future)
    return await asyncio.wait_for(future, 10)


def test_queued_requests_share_batches_and_keep_their_order() -> None:
    proceed, sizes = threading.Event(), []

    def compute(items: Sequence[int]) -> list[int]:
        proceed.wait(10)
        sizes.append(len(items))
        return [-item for item in items]

    async def work() -> None:
        batcher = Batcher(compute, size=4)
        asked = [asyncio.create_task(ask(batcher, [n, n + 1, n + 2])) for n in (0, 10, 20)]
        await asyncio.sleep(0)  # one turn of the loop: all have submitted
        proceed.set()
        answers = await asyncio.gather(*asked)
        batcher.close()
        assert answers == [[0, -1, -2], [-10, -11, -12], [-20, -21, -22]]

    asyncio.run(work())
    assert sum(sizes) == 9
    assert max(sizes) == 4


def test_a_large_request_is_split_into_batches_in_order() -> None:
    sizes = []

    def compute(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [-item for item in items]

    async def work() -> None:
        batcher = Batcher(compute, size=5)
        assert await ask(batcher, list(range(12))) == [-item for item in range(12)]
        batcher.close()

    asyncio.run(work())
    assert sizes == [5, 5, 2]


def test_a_failure_reaches_the_client_and_the_thread_continues() -> None:
    def compute(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise ValueError("unlucky")
        return list(items)

    async def work() -> None:
        batcher = Batcher(compute, size=2)
        with pytest.raises(ValueError, match="unlucky"):
            await ask(batcher, [1, 2, 13, 4, 5])
        assert await ask(batcher, [7]) == [7]
        assert batcher.waiting == 0
        batcher.close()

    asyncio.run(work())


def test_cancelled_requests_are_not_computed() -> None:
    started, proceed, seen = threading.Event(), threading.Event(), []

    def compute(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        started.set()
        proceed.wait(10)
        return list(items)

    async def work() -> None:
        batcher = Batcher(compute, size=1)
        first = asyncio.create_task(ask(batcher, [1]))
        second = asyncio.create_task(ask(batcher, [2]))
        assert await asyncio.to_thread(started.wait, 10)  # the first is being computed
        second.cancel()
        await asyncio.wait([second])
        proceed.set()
        assert await first == [1]
        batcher.close()

    asyncio.run(work())
    assert seen == [1]


def test_an_empty_request_and_a_closed_batcher() -> None:
    async def work() -> None:
        batcher = Batcher(list, size=2)
        assert await ask(batcher, []) == []
        batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            await ask(batcher, [1])

    asyncio.run(work())
