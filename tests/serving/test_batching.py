"""What waits together is computed together, in order, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from peewit.serving.batching import Batcher


async def ask(batcher: Batcher[int, int], items: Sequence[int]) -> list[int]:
    future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    batcher.submit(items, future)
    return await asyncio.wait_for(future, 10)


def test_requests_that_wait_share_batches_and_keep_their_order() -> None:
    begin, sizes = threading.Event(), []

    def compute(items: Sequence[int]) -> list[int]:
        begin.wait(10)
        sizes.append(len(items))
        return [-item for item in items]

    async def work() -> None:
        batcher = Batcher(compute, size=4)
        asked = [asyncio.create_task(ask(batcher, [n, n + 1, n + 2])) for n in (0, 10, 20)]
        await asyncio.sleep(0)  # one turn of the loop: all have asked
        begin.set()
        answers = await asyncio.gather(*asked)
        batcher.close()
        assert answers == [[0, -1, -2], [-10, -11, -12], [-20, -21, -22]]

    asyncio.run(work())
    assert sum(sizes) == 9
    assert max(sizes) == 4


def test_a_request_of_many_takes_several_batches_and_its_order_stays() -> None:
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


def test_a_failure_reaches_those_who_wait_and_the_thread_goes_on() -> None:
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


def test_who_has_hung_up_is_not_computed() -> None:
    begun, begin, seen = threading.Event(), threading.Event(), []

    def compute(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        begun.set()
        begin.wait(10)
        return list(items)

    async def work() -> None:
        batcher = Batcher(compute, size=1)
        first = asyncio.create_task(ask(batcher, [1]))
        second = asyncio.create_task(ask(batcher, [2]))
        assert await asyncio.to_thread(begun.wait, 10)  # the first is being computed
        second.cancel()
        await asyncio.wait([second])
        begin.set()
        assert await first == [1]
        batcher.close()

    asyncio.run(work())
    assert seen == [1]


def test_nothing_is_answered_with_nothing_and_a_closed_one_refuses() -> None:
    async def work() -> None:
        batcher = Batcher(list, size=2)
        assert await ask(batcher, []) == []
        batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            await ask(batcher, [1])

    asyncio.run(work())
