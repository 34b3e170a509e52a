"""Read packed pixels from their file: few at a time, checked, in bounded memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.packing.decoding import pixel_hash
from peewit.data.store import Facts, part_of, positions
from peewit.errors import PeewitError
from peewit.system.files import cannot_write

Repair = Callable[[int], npt.NDArray[np.uint8]]
"""Decodes the picture with a number again."""


class PackedFile:
    """The pixels of an entry of the cache as ``Images``.

    They are read when they are indexed, not mapped where the system has ``preadv``: the pages of a
    map count as memory of the process, and random batches soon touch all of them. A picture is
    compared with its hash when it is first read, and decoded again if it is damaged.

    Parameters
    ----------
    path : Path
        The pixels of all pictures as plain bytes.
    shape : tuple of int
        Number of pictures, height, width and channels.
    facts : structured array, shape (N,)
        See `peewit.data.store.facts_type`.
    repair : callable
        Returns the pixels of a picture, from its file.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It has another size.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], facts: Facts, repair: Repair) -> None:
        if path.stat().st_size != math.prod(shape):
            raise ValueError("another size")
        self.shape = shape
        self._path, self._hashes, self._repair = path, facts["hash"], repair
        self._checked = ~facts["readable"]  # the others are zeros
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
        pixels = self._read(wanted)
        self._check(wanted, pixels)
        return pixels.reshape(*numbers.shape, *self.shape[1:])

    def prefetch(self, rows: npt.NDArray[np.int64]) -> None:
        """Ask the system to read the pictures at ``rows`` from disk in the background."""
        if hasattr(os, "posix_fadvise"):
            file, size = self._file.fileno(), self._size
            for row in rows.tolist():
                os.posix_fadvise(file, row * size, size, os.POSIX_FADV_WILLNEED)

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

    def _check(self, numbers: npt.NDArray[np.int64], pixels: npt.NDArray[np.uint8]) -> None:
        """Compare those pictures with their hashes that have not been read before.

        Not a whole chunk at a time: with a million pictures, the first steps of a training would
        read most of the file.
        """
        for place in np.flatnonzero(~self._checked[numbers]).tolist():
            number = int(numbers[place])
            if pixel_hash(pixels[place]) != self._hashes[number]:
                decoded = self._repair(number)
                if pixel_hash(decoded) != self._hashes[number]:
                    raise PeewitError(
                        f"the decoded pictures in {self._path} are damaged",
                        "they differ from those that were written, also after decoding them again",
                        f"remove the folder {self._path.parent}, and start again",
                    )
                pixels[place] = decoded.reshape(-1)
                self._write(number, decoded)
            self._checked[number] = True

    def _write(self, first: int, pixels: npt.NDArray[np.uint8]) -> None:
        try:
            with self._path.open("r+b") as file:
                file.seek(first * self._size)
                file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            raise cannot_write(self._path, error) from error
