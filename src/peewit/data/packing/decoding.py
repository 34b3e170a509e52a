"""Decode the pictures of a listing in chunks, on all cores."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.pictures import Pictures
from peewit.data.store import Facts, facts_type
from peewit.errors import PeewitError
from peewit.system.cpu import usable_cores
from peewit.system.text import duration

# A chunk is the unit of work of a thread, and of what a killed process loses.
MOST_OF_CHUNK = 256  # pictures
BYTES_OF_CHUNK = 4_000_000
# Chunks that are decoded or wait to be written, besides one a core
WAITING = 2
# Pictures a core that are read before they are decoded, where they must be read in order
READ_AHEAD = 4
# Seconds between two reports of progress
INTERVAL = 0.2


class Failure(NamedTuple):
    """Why a picture could not be decoded.

    Parameters
    ----------
    what, why, todo : str
        Of the `PeewitError`.
    unread : bool
        Whether its file could not even be read: this may be different at the next start.
    """

    what: str
    why: str
    todo: str
    unread: bool

    def error(self) -> PeewitError:
        """Return the error again."""
        return PeewitError(self.what, self.why, self.todo)


class Chunk(NamedTuple):
    """Decoded pictures with consecutive numbers in their listing.

    Parameters
    ----------
    pixels : uint8 array, shape (n, height, width, channels)
        Zeros for a picture that could not be decoded.
    facts : structured array, shape (n,)
        See `peewit.data.store.facts_type`.
    failures : dict of int to Failure
        By number in the listing.
    """

    pixels: npt.NDArray[np.uint8]
    facts: Facts
    failures: dict[int, Failure]


@dataclass
class Progress:
    """How far the decoding of pictures is, or other work on each of them.

    Parameters
    ----------
    done, total : int
        Pictures, including those that an earlier process has decoded.
    first : int
        How many an earlier process has decoded.
    what : str
        What is done with "pictures".
    """

    done: int
    total: int
    first: int = 0
    what: str = "decoding"
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since this process began to decode."""
        return time.monotonic() - self.began

    def __str__(self) -> str:
        rate = (self.done - self.first) / max(self.seconds, 1e-9)
        left = duration((self.total - self.done) / rate) if rate else "?"
        return (
            f"{self.what} pictures: {self.done:,} of {self.total:,}, "
            f"{rate:,.0f} pictures/s, {left} left"
        )


Decoded = npt.NDArray[np.uint8] | Failure
Show = Callable[[Progress], None]
Reuse = Callable[[int], npt.NDArray[np.uint8] | None]
"""Returns the pixels of a picture that has been decoded before, if it has."""


def chunk_length(picture: tuple[int, ...]) -> int:
    """Return the number of pictures in a chunk.

    >>> chunk_length((32, 32, 3)), chunk_length((224, 224, 3)), chunk_length((4000, 4000, 3))
    (256, 26, 1)
    """
    return max(1, min(MOST_OF_CHUNK, BYTES_OF_CHUNK // math.prod(picture)))


def pixel_hash(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the hash of an image's pixels that `Dataset.image_hashes` contains."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
    return int.from_bytes(digest[:8], "little")


def decode_chunks(
    pictures: Pictures, first: int, show: Show | None, reuse: Reuse | None = None
) -> Iterator[Chunk]:
    """Decode the pictures from number ``first`` on; yield them in chunks, in order.

    Parameters
    ----------
    pictures : Pictures
    first : int
        A multiple of the length of a chunk.
    show : callable or None
        Called several times a second; may raise.
    reuse : callable, optional
        Returns the pixels of a picture that need not be decoded again.
    """
    length, total = chunk_length(pictures.shape[1:]), len(pictures)
    stop, progress = threading.Event(), Progress(first, total, first)
    waiting: deque[Future[Chunk]] = deque()
    running: deque[Future[Decoded]] = deque()
    lock, shown = threading.Lock(), time.monotonic()
    cores = usable_cores()
    pool = ThreadPoolExecutor(cores)

    def rows_of(start: int) -> range:
        return range(start, min(start + length, total))

    def decode(row: int, content: bytes | Failure | None = None) -> Decoded:
        found: Decoded | None = reuse(row) if reuse else None
        if found is None:
            found = _decode(pictures, row, _read(pictures, row) if content is None else content)
        with lock:
            progress.done += 1
        return found

    def decode_chunk(start: int) -> Chunk:
        rows = rows_of(start)
        return _chunk(pictures, rows, (decode(row) for row in rows if not stop.is_set()))

    def submit_in_order(start: int) -> Future[Chunk]:
        parts = []
        for row in rows_of(start):
            if len(running) >= cores * READ_AHEAD:
                running.popleft().exception()  # waits for it
            tick()
            running.append(pool.submit(decode, row, _read(pictures, row)))
            parts.append(running[-1])
        # it waits only for work that the pool has begun before it
        return pool.submit(_chunk, pictures, rows_of(start), (part.result() for part in parts))

    def tick() -> None:
        nonlocal shown
        if show and time.monotonic() - shown >= INTERVAL:
            shown = time.monotonic()
            show(progress)

    in_order = pictures.listing.files.sequential
    most = 1 if in_order else cores + WAITING
    starts = iter(range(first, total, length))
    try:
        while True:
            while len(waiting) < most and (start := next(starts, None)) is not None:
                waiting.append(
                    submit_in_order(start) if in_order else pool.submit(decode_chunk, start)
                )
            if not waiting:
                break
            while not _finished(waiting[0]):
                tick()
            tick()
            yield waiting.popleft().result()
        if show:
            show(progress)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _chunk(pictures: Pictures, rows: range, decoded: Iterable[Decoded]) -> Chunk:
    """Return decoded pictures with their facts."""
    pixels = np.zeros((len(rows), *pictures.shape[1:]), np.uint8)
    facts = np.zeros(len(rows), facts_type(pictures.channels))
    failures: dict[int, Failure] = {}
    # fewer of them if this process is being stopped
    for place, found in enumerate(decoded):
        if isinstance(found, Failure):
            failures[rows[place]] = found
        else:
            pixels[place] = found
            facts["hash"][place] = pixel_hash(found)
            facts["readable"][place] = True
    # channel by channel: 2.4 us a picture of 32 x 32 pixels, instead of 20 us
    values = pixels.reshape(len(rows), -1, pictures.channels).transpose(0, 2, 1)
    values = np.ascontiguousarray(values)  # (n, C, pixels)
    # 32 bits hold the sum of the squares of 66,000 pixels
    wide = np.uint32 if values.shape[2] <= 1 << 16 else np.uint64
    facts["sums"] = values.sum(2, dtype=wide)
    facts["squares"] = np.einsum("ncp,ncp->nc", values, values, dtype=wide, casting="unsafe")
    return Chunk(pixels, facts, failures)


def _finished(future: Future[Chunk]) -> bool:
    """Wait a moment for a chunk; return whether it is finished."""
    try:
        future.exception(INTERVAL)
    except TimeoutError:
        return False
    return True


def _read(pictures: Pictures, row: int) -> bytes | Failure:
    try:
        return pictures.listing.files.read(row)
    except PeewitError as error:
        return Failure(error.what, error.why, error.todo, unread=True)


def _decode(pictures: Pictures, row: int, content: bytes | Failure) -> Decoded:
    if isinstance(content, Failure):
        return content
    try:
        return pictures.decode_content(content, row)
    except PeewitError as error:
        return Failure(error.what, error.why, error.todo, unread=False)
