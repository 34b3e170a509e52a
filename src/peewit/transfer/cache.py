"""A cache of features on disk, by the content of the pictures."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt

from peewit.data.caches import FEATURES, folder_of_features

Floats = npt.NDArray[np.float32]


class FeatureCache:
    """Features of pictures by the hash of their pixels (``Dataset.image_hashes``).

    They are kept in a file to which records are only appended, so that a process that is killed
    loses nothing but what it was writing, and several processes can add to it. If the file cannot
    be written, new features are kept in memory only.

    Parameters
    ----------
    name : str
        Of the file: everything that features depend on besides the pixels.
    width : int
        Features of a picture.

    Examples
    --------
    >>> cache = FeatureCache("example", 2, Path("nowhere"))
    >>> cache.add(np.array([7], np.uint64), np.array([[1, 2]], np.float32))
    >>> cache.known(np.array([5, 7], np.uint64)).tolist()
    [False, True]
    """

    def __init__(self, name: str, width: int, place: Path | None = None) -> None:
        self.file = (place or folder_of_features()) / f"{name}{FEATURES}"
        self._type = np.dtype([("hash", "<u8"), ("crc", "<u4"), ("features", "<f4", (width,))])
        self._stored: npt.NDArray[np.void] = self._read()
        self._added: list[tuple[npt.NDArray[np.uint64], Floats]] = []
        self._index()

    def known(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Return which of the pictures with these hashes, uint64 (N,), have features here."""
        return self._find(hashes) >= 0

    def get(self, hashes: npt.NDArray[np.uint64]) -> Floats:
        """Return the features of pictures that are all ``known``, (N,) -> (N, width)."""
        at = self._find(hashes)
        out = np.empty((len(at), self._type["features"].shape[0]), np.float32)
        first = len(self._stored)
        stored = at < first
        out[stored] = self._stored["features"][at[stored]]
        for _, features in self._added:
            inside = (at >= first) & (at < first + len(features))
            out[inside] = features[at[inside] - first]
            first += len(features)
        return out

    def add(self, hashes: npt.NDArray[np.uint64], features: Floats) -> None:
        """Add the features, (N, width), of pictures with these hashes, (N,)."""
        self._added.append((hashes, features))
        self._index()
        records = np.empty(len(hashes), self._type)
        records["hash"], records["features"] = hashes, features
        records["crc"] = _checksums(records)
        with suppress(OSError):  # a full disk, or one that cannot be written to
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.file.with_suffix(".lock")), self.file.open("ab") as file:
                # a record that a killed process left incomplete
                file.truncate(file.tell() // self._type.itemsize * self._type.itemsize)
                file.write(records.tobytes())

    def _read(self) -> npt.NDArray[np.void]:
        """Return the intact records of the file, memory-mapped if all are."""
        try:
            count = self.file.stat().st_size // self._type.itemsize
            records = np.memmap(self.file, self._type, "r", shape=(count,)) if count else None
        except OSError:
            records = None
        if records is None:
            return np.empty(0, self._type)
        intact = records["crc"] == _checksums(records)
        return records if intact.all() else records[intact]

    def _index(self) -> None:
        hashes = np.concatenate([self._stored["hash"], *(added for added, _ in self._added)])
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def _find(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the number of each picture's record, -1 if it has none, int64 (N,)."""
        if not len(self._sorted):
            return np.full(len(hashes), -1)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1).astype(np.int64)


def _checksums(records: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of the hash and the features of each record."""
    found = (
        zlib.crc32(one["features"].tobytes(), int(one["hash"]) & 0xFFFFFFFF) for one in records
    )
    return np.fromiter(found, np.uint32, len(records))
