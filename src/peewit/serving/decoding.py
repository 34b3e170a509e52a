"""The pictures of requests, decoded in several threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from peewit.errors import PeewitError
from peewit.images import reader as pictures
from peewit.images.reader import TooManyPixels
from peewit.serving.body import Upload
from peewit.serving.engine import Answer, Engine, Prepared
from peewit.system.cpu import usable_cores


@dataclass
class Decoding:
    """The pictures of one request, and what became of each of them so far.

    Attributes
    ----------
    uploads : sequence of Upload
    explain : bool
        Whether heat maps are wanted.
    future : asyncio.Future
        Of the answers to those that could be read; done before that, nobody waits any more.
    prepared : list of Prepared or PeewitError
    """

    uploads: Sequence[Upload]
    explain: bool
    future: asyncio.Future[list[Answer]]
    prepared: list[Prepared | PeewitError] = field(default_factory=list)


class Decoders:
    """Threads that make pictures what the network reads, a request at a time each.

    A picture of 50 megapixels takes seconds and some hundred megabytes. Requests with large ones go
    on in a thread of their own, one after the other: the others pass them by.

    Parameters
    ----------
    engine : Engine
    limit : int
        Pixels that one picture may declare.
    hand_on : callable
        Called in a decoding thread with what could be read of a request, and its future.
    """

    def __init__(
        self,
        engine: Engine,
        limit: int,
        hand_on: Callable[[list[Prepared], asyncio.Future[list[Answer]]], None],
    ) -> None:
        self._engine, self._limit, self._hand_on = engine, limit, hand_on
        self._threads = ThreadPoolExecutor(usable_cores(), "peewit-decode")
        self._one_large = ThreadPoolExecutor(1, "peewit-decode-large")
        self._closed = False

    def submit(self, decoding: Decoding) -> None:
        """Decode the pictures of ``decoding`` when it is their turn."""
        self._threads.submit(self._decode, decoding, min(pictures.LARGE, self._limit))

    def close(self) -> None:
        """End the threads, each after the picture that it is at: nobody waits for more."""
        self._closed = True
        self._threads.shutdown(cancel_futures=True)
        self._one_large.shutdown(cancel_futures=True)

    def _decode(self, decoding: Decoding, limit: int) -> None:
        """Go on with a request, whose pictures may have ``limit`` pixels in this thread."""
        try:
            for upload in decoding.uploads[len(decoding.prepared) :]:
                if self._closed or decoding.future.done():
                    return
                try:
                    picture = self._engine.prepare(upload, decoding.explain, limit)
                except TooManyPixels as error:  # said before anything is decoded
                    if limit < self._limit:
                        self._one_large.submit(self._decode, decoding, self._limit)
                        return
                    decoding.prepared.append(error)
                except PeewitError as error:
                    decoding.prepared.append(error)
                else:
                    decoding.prepared.append(picture)
            good = [picture for picture in decoding.prepared if isinstance(picture, Prepared)]
            self._hand_on(good, decoding.future)
        except BaseException as error:
            # whoever waits for the answer must hear of it
            decoding.future.get_loop().call_soon_threadsafe(fail, decoding.future, error)
            raise


def fail(future: asyncio.Future[list[Answer]], error: BaseException) -> None:
    """Let ``future`` end with ``error``, unless it has ended. Called in its loop."""
    if not future.done():
        future.set_exception(error)
