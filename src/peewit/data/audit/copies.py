"""Identical pictures and near-duplicates: across parts, under two labels, or neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit.data.audit.findings import PARTS, Finding
from peewit.data.listing import TEST, TRAIN, VALIDATION

Int64s = npt.NDArray[np.int64]


class Labelled(Protocol):
    """Pictures, such as a ``Listing``: the label and the part of each."""

    @property
    def labels(self) -> Int64s:
        """The class of each picture, shape (N,)."""

    @property
    def parts(self) -> npt.NDArray[Any]:
        """The part of each picture, as in a ``Listing``, shape (N,)."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes."""


def copies(
    data: Labelled, rows: Int64s, hashes: npt.NDArray[Any], near: Int64s
) -> Iterator[Finding]:
    """Yield the findings about pictures that others repeat.

    Parameters
    ----------
    data : Labelled
    rows : int64 array, shape (n,)
        The pictures that can be read.
    hashes : array, shape (n,)
        Equal for identical pictures.
    near : int64 array, shape (n,)
        Equal for near-duplicates, including identical pictures.
    """
    _, near, sizes = np.unique(near, return_inverse=True, return_counts=True)
    places: dict[int, int] = {}
    groups: dict[int, list[int]] = {}
    for place in np.flatnonzero(sizes[near] > 1).tolist():
        row = int(rows[place])
        places[row] = place
        groups.setdefault(int(near[place]), []).append(row)
    for group in groups.values():
        for row in group:
            similar = [other for other in group if other != row]
            identical = [other for other in similar if hashes[places[other]] == hashes[places[row]]]
            both = (("identical", identical), ("similar", similar))
            # identical pictures are near-duplicates too, but need not be named twice
            parts = [_in_two_parts(data, row, others, what) for what, others in both]
            labels = [_with_two_labels(data, row, others, what) for what, others in both]
            graver = [*filter(None, parts)][:1] + [*filter(None, labels)][:1]
            again = [_again(row, others, what) for what, others in both]
            yield from graver or [*filter(None, again)][:1]


def _in_two_parts(data: Labelled, row: int, others: list[int], what: str) -> Finding | None:
    own = int(data.parts[row])
    apart = sorted({int(data.parts[other]) for other in others} - {own})
    if not apart or not {own, *apart} & {TEST, VALIDATION}:
        return None
    detail = "also in " + " and ".join(PARTS[part] for part in apart)
    # the parts for testing stay as they are, so that accuracies stay comparable; and whether a
    # near-duplicate shows the same thing is for a person to say
    action = "remove" if own == TRAIN and what == "identical" else "keep"
    kind = f"{what} in two parts"
    return Finding(kind=kind, row=row, detail=detail, others=tuple(others), action=action)


def _with_two_labels(data: Labelled, row: int, others: list[int], what: str) -> Finding | None:
    labels = {int(data.labels[other]) for other in others} - {int(data.labels[row])}
    if not labels:
        return None
    detail = "also " + ", ".join(data.class_names[label] for label in sorted(labels))
    # which label is right is not known, and no classifier can get both right
    action = "remove" if what == "identical" else "keep"
    kind = f"{what} with two labels"
    return Finding(kind=kind, row=row, detail=detail, others=tuple(others), action=action)


def _again(row: int, others: list[int], what: str) -> Finding | None:
    if not others:
        return None
    # of identical pictures the first stays
    action = "remove" if what == "identical" and row > min(others) else "keep"
    return Finding(kind=what, row=row, others=tuple(others), action=action)
