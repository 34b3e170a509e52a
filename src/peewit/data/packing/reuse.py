"""Pixels of earlier entries of the cache, for pictures that have not changed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from peewit.data.packing.decoding import Reuse, pixel_hash
from peewit.data.packing.entry import BUILDING, INVALID, Key, open_entry, read_about, unfinished
from peewit.data.pictures import Pictures
from peewit.data.store import Facts

Pixels = npt.NDArray[np.uint8]


def earlier_version(folder: Path, key: Key, pictures: Pictures) -> Reuse | None:
    """Return the unchanged pictures of the most recently used version of an entry.

    Parameters
    ----------
    folder : Path
        Of the cache.
    key : Key
        Of the new version.
    pictures : Pictures

    Returns
    -------
    callable or None
        Returns the pixels of a picture, or None if it has to be decoded.
    """
    versions = [
        path
        for path in folder.glob(f"{key.prefix}*")
        if not path.name.endswith(("-facts", ".lock"))
    ]
    for path in sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            count = int(read_about(path)["pictures"])
            names = json.loads((path / "names").read_text(encoding="ascii"))
            stamps = np.fromfile(path / "stamps", np.int64).reshape(-1, 2)
            entry = open_entry(path, pictures, count)
            pixels = np.memmap(path / "pixels", np.uint8, "r", shape=(count, *pictures.shape[1:]))
        except INVALID:
            continue
        if entry is None or not len(names) == len(stamps) == count:
            continue
        old = {name: row for row, name in enumerate(names)}
        listing = pictures.listing
        rows = np.array([old.get(name, -1) for name in listing.names], np.int64)
        same = (rows >= 0) & (stamps[rows] == listing.stamps).all(1)
        return _reader(pixels, entry.facts, np.where(same, rows, -1))
    return None


def unfinished_entry(folder: Path, key: Key, pictures: Pictures) -> Reuse | None:
    """Return the pictures of an entry that could not be finished, as `earlier_version` does."""
    path = folder / f"{BUILDING}{key.name}"
    facts, _ = unfinished(path, pictures, key)
    if not len(facts):
        return None
    rows = np.full(len(pictures), -1, np.int64)
    rows[: len(facts)] = np.arange(len(facts))
    shape = (len(facts), *pictures.shape[1:])
    # the file may go on after them, where the disk was full
    pixels = np.memmap(path / "pixels", np.uint8, "r", shape=(math.prod(shape),)).reshape(shape)
    return _reader(pixels, facts, rows)


def _reader(pixels: Pixels, facts: Facts, rows: npt.NDArray[np.int64]) -> Reuse:
    """Return pixels by number in the new listing; ``rows`` are their old numbers, -1 for none."""

    def read(number: int) -> Pixels | None:
        row = int(rows[number])
        if row < 0 or not facts["readable"][row]:
            return None
        found = np.array(pixels[row])
        # what is damaged is decoded again
        return found if pixel_hash(found) == facts["hash"][row] else None

    return read
