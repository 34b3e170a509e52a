"""Read packed pixels from their file: few at a time, checked, in bounded memory."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.store import part_of, positions
from peewit.errors import PeewitError
from peewit.system.files import cannot_write

Repair = Callable[[int, int], npt.NDArray[np.uint8]]
"""Decodes the pictures from one number to before another again."""


class PackedFile:
    """The pixels of an entry of the cache as ``Images``.

    They are read when they are indexed, not mapped where the system has ``preadv``: the pages of a
    map count as memory of the process, and random batches soon touch all of them. A chunk is
    compared with its checksum when the first of its pictures is read. The pictures of a damaged
    chunk are decoded again.

    Parameters
    ----------
    path : Path
        The pixels of all pictures as plain bytes.
    shape : tuple of int
        Number of pictures, height, width and channels.
    checksums : uint32 array, shape (chunks,)
        CRC-32 of each chunk.
    length : int
        Pictures in a chunk.
    repair : callable
        Returns the pixels of the pictures of a chunk, from their files.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It has another size.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        checksums: npt.NDArray[np.uint32],
        length: int,
        repair: Repair,
    ) -> None:
        if path.stat().st_size != math.prod(shape):
            raise ValueError("another size")
        self.shape = shape
        self._path, self._checksums, self._length, self._repair = path, checksums, length, repair
        self._checked = np.zeros(len(checksums), bool)
        self._size = math.prod(shape[1:])
        self._file = path.open("rb", buffering=0)
        self._map: npt.NDArray[np.uint8] | None = None
        if not hasattr(os, "preadv"):
            self._map = np.memmap(path, np.uint8, "r", shape=(shape[0], self._size))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:
        if isinstance(rows, tuple):
            chosen: npt.NDArray[np.uint8] = part_of(self, rows)
            return chosen
        numbers = positions(rows, len(self))
        wanted = numbers.reshape(-1)
        self._check(wanted)
        return self._read(wanted).reshape(*numbers.shape, *self.shape[1:])

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _read(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read pictures, (n,) -> (n, bytes of a picture)."""
        if self._map is not None:
            return np.asarray(self._map[numbers])
        out = np.empty((len(numbers), self._size), np.uint8)
        # pictures that follow each other in the file are read at once
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        starts = [0, *breaks.tolist()]
        for start, end in zip(starts, [*breaks.tolist(), len(numbers)], strict=True):
            if start == end:  # no pictures at all
                continue
            view = out[start:end].reshape(-1).data
            at = int(numbers[start]) * self._size
            while view:
                # less than asked: a signal, the most that one call reads, or the end of the file
                count = os.preadv(self._file.fileno(), [view], at)
                if not count:
                    raise PeewitError(f"cannot read {self._path}", "it has been cut short")
                view, at = view[count:], at + count
        return out

    def _check(self, numbers: npt.NDArray[np.int64]) -> None:
        """Compare those chunks with their checksums that have not been compared yet."""
        chunks = np.unique(numbers // self._length)
        for chunk in chunks[~self._checked[chunks]].tolist():
            first = chunk * self._length
            rows = np.arange(first, min(first + self._length, len(self)))
            if zlib.crc32(self._read(rows).data) != self._checksums[chunk]:
                pixels = self._repair(first, first + len(rows))
                self._write(first, pixels)
                if zlib.crc32(self._read(rows).data) != self._checksums[chunk]:
                    raise PeewitError(
                        f"the decoded pictures in {self._path} are damaged",
                        "they differ from those that were written, also after decoding them again",
                        f"remove the folder {self._path.parent}, and start again",
                    )
            self._checked[chunk] = True

    def _write(self, first: int, pixels: npt.NDArray[np.uint8]) -> None:
        try:
            with self._path.open("r+b") as file:
                file.seek(first * self._size)
                file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            raise cannot_write(self._path, error) from error
