"""The labelled pictures of a source, before any of them is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

# The part of a data set that its source puts a picture into; UNKNOWN if the source has no parts.
UNKNOWN, TRAIN, VALIDATION, TEST = range(4)


class PictureFiles(Protocol):
    """The encoded pictures of a source. Threads may read several at a time."""

    @property
    def sequential(self) -> bool:
        """Whether pictures should be read in the order of their numbers: others take much longer.

        True for a large compressed archive, which is decompressed from first to last.
        """

    def read(self, number: int) -> bytes:
        """Return the content of a picture file.

        Raises
        ------
        PeewitError
            It cannot be read, for example because it has been removed.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """The labelled pictures of a source, before any of them is decoded.

    Parameters
    ----------
    place : Path
        The folder, table or archive.
    names : sequence of str, length N
        What each picture is called in results: its path relative to ``place``, with slashes on
        every system. Each is different.
    labels : int64 array, shape (N,)
        Class numbers.
    class_names : sequence of str
        In natural order: "2" before "10".
    files : PictureFiles
        Reads picture ``number``, 0 to N - 1.
    stamps : int64 array, shape (N, 2)
        Two numbers for each picture that change when its content may have changed, such as its
        size and its modification time.
    parts : uint8 array, shape (N,)
        ``UNKNOWN``, ``TRAIN``, ``VALIDATION`` or ``TEST``.
    columns : mapping of str to sequence of str
        The other columns of a table, by which pictures can be grouped.
    notes : sequence of str
        Sentences for the user: what was left out, and why.
    """

    place: Path
    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    class_names: Sequence[str]
    files: PictureFiles
    stamps: npt.NDArray[np.int64]
    parts: npt.NDArray[np.uint8]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)
