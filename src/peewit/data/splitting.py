"""Split images into parts: stratified by class, groups kept whole, the same on every machine.

The order in which images are drawn comes from SHA-256 of their names, not from a random number
generator: NumPy does not promise the same stream in every version (NEP 19), and a picture that is
added or removed leaves the part of almost all others unchanged. All decisions are made with
integers, so that no rounding differs between machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError

Int64s = npt.NDArray[np.int64]

# Orders of the groups that are tried if there are few, and what few is
_TRIALS, _FEW_GROUPS = 20, 2_000
# A class counts inversely to its size. Integers of this scale are exact and small enough.
_SCALE = 1 << 40


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """What a split moves as a whole: groups of images, and images without a group.

    Parameters
    ----------
    labels : int64 array, shape (N,)
    classes : int
        Number of classes.
    seed : int
    names : sequence of str, optional
        The names that decide the order; by default the positions.
    groups : int64 array, shape (N,), optional
    """

    labels: Int64s
    classes: int
    seed: int
    names: Sequence[str] | None = None
    groups: Int64s | None = None

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """The place of each image in the order, uint64, shape (N,)."""
        names = range(len(self.labels)) if self.names is None else self.names
        start = hashlib.sha256(f"{self.seed}/".encode())
        found = bytearray()
        for name in names:
            one = start.copy()
            one.update(str(name).encode("utf-8", "surrogateescape"))
            found += one.digest()[:8]
        return np.frombuffer(found, ">u8").astype(np.uint64)

    @cached_property
    def unit(self) -> Int64s:
        """The number of each image's group, from 0, int64, shape (N,)."""
        if self.groups is None:
            return np.arange(len(self.labels))
        return np.unique(self.groups, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def size(self) -> Int64s:
        """Number of images of each group."""
        return np.bincount(self.unit).astype(np.int64)

    @cached_property
    def whole(self) -> dict[int, dict[int, int]]:
        """The groups of two or more images: number of images of each class."""
        found: dict[int, dict[int, int]] = {}
        rows = np.flatnonzero(self.size[self.unit] > 1)
        for unit, label in zip(self.unit[rows].tolist(), self.labels[rows].tolist(), strict=True):
            counts = found.setdefault(unit, {})
            counts[label] = counts.get(label, 0) + 1
        return found

    @cached_property
    def key_of_unit(self) -> npt.NDArray[np.uint64]:
        """The place of each group in the order: the first of its images."""
        keys = np.full(len(self.size), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(keys, self.unit, self.keys)
        return keys

    def order(self, trial: int) -> list[int]:
        """Return the groups of two or more images in the order in which they are drawn."""
        if trial == 0:
            return sorted(self.whole, key=lambda unit: (int(self.key_of_unit[unit]), unit))

        def key(unit: int) -> bytes:
            return hashlib.sha256(f"{trial}/{self.key_of_unit[unit]}".encode()).digest()

        return sorted(self.whole, key=lambda unit: (key(unit), unit))

    def single(self) -> Int64s:
        """Return the images without a group, in the order in which they are drawn."""
        rows = np.flatnonzero(self.size[self.unit] == 1)
        return rows[np.argsort(self.keys[rows], kind="stable")]


def held_out(units: Units, fraction: float) -> npt.NDArray[np.bool_]:
    """Choose the images of a part that is split off.

    Groups are drawn first, at random, as long as each brings the number of images of its classes
    closer to ``fraction``; then single images fill each class up to its share. If the groups are
    few, the best of several orders is taken. A class with images in two groups or more keeps some
    in the first part.

    Parameters
    ----------
    units : Units
    fraction : float
        Share of each class, more than 0 and less than 1.

    Returns
    -------
    bool array, shape (N,)
        Whether an image is in the part that is split off.

    Raises
    ------
    PeewitError
        One part would be empty.
    """
    left = np.bincount(units.labels, minlength=units.classes)
    wanted = [round(fraction * count) for count in left.tolist()]
    single = units.single()
    singles = np.bincount(units.labels[single], minlength=units.classes)
    taken, chosen = _best_groups(units, fraction, left - singles, singles, left)
    out = np.isin(units.unit, np.array(sorted(chosen), np.int64))
    for label in np.flatnonzero(singles).tolist():
        own = single[units.labels[single] == label]
        # one image stays if no group of this class does
        spare = len(own) - int(taken[label] + len(own) == left[label])
        out[own[: min(max(wanted[label] - int(taken[label]), 0), spare)]] = True
    if not out.any():
        out |= units.unit == _least(units, left)
    if not out.any() or out.all():
        raise PeewitError(
            f"cannot split off {fraction:g} of {len(out)} images",
            "one part would be empty"
            + ("" if units.groups is None else ", because groups are kept whole"),
            "use more images or another fraction",
        )
    return out


def _best_groups(
    units: Units, fraction: float, grouped: Int64s, singles: Int64s, left: Int64s
) -> tuple[Int64s, set[int]]:
    """Return how many images of each class, and which groups, are split off."""
    trials = _TRIALS if 0 < len(units.whole) <= _FEW_GROUPS else 1
    goal = [round(fraction * count) for count in grouped.tolist()]
    weight = [_SCALE // max(count, 1) for count in left.tolist()]
    best: tuple[int, Int64s, set[int]] | None = None
    for trial in range(trials):
        taken, chosen = [0] * units.classes, set()
        for unit in units.order(trial):
            counts = units.whole[unit]
            farther = sum(
                weight[label] * count * (2 * (taken[label] - goal[label]) + count)
                for label, count in counts.items()
            )
            stays = all(left[label] > taken[label] + count for label, count in counts.items())
            if farther <= 0 and stays:
                chosen.add(unit)
                for label, count in counts.items():
                    taken[label] += count
        off = [taken[label] - goal[label] for label in range(units.classes)]
        cost = sum(weight[label] * off[label] ** 2 for label in range(units.classes))
        if best is None or cost < best[0]:
            best = cost, np.array(taken, np.int64), chosen
        # what single images can make up for is good enough: the first order, as a rule, so that
        # an added picture does not lead to another one
        if all(-singles[label] <= off[label] <= 1 for label in range(units.classes)):
            best = cost, np.array(taken, np.int64), chosen
            break
    assert best is not None
    return best[1], best[2]


def _least(units: Units, left: Int64s) -> int:
    """Return the smallest group, the first in the order, that leaves images of its classes."""
    for unit in np.lexsort((units.key_of_unit, units.size)).tolist():
        counts = np.bincount(units.labels[units.unit == unit], minlength=units.classes)
        if (left > counts)[counts > 0].all():
            return int(unit)
    return -1


def fold_numbers(units: Units, folds: int) -> Int64s:
    """Divide images into folds for cross-validation.

    The largest groups are placed first, each into the fold that has the fewest images of its
    classes, as in scikit-learn's StratifiedGroupKFold; ties go to the smallest fold.

    Parameters
    ----------
    units : Units
    folds : int
        Number of folds, at least 2.

    Returns
    -------
    int64 array, shape (N,)
        The fold of each image, from 0.

    Raises
    ------
    PeewitError
        There are fewer groups than folds.
    """
    if not 2 <= folds <= len(units.size):
        raise PeewitError(
            f"cannot divide {len(units.labels):,} images into {folds} folds",
            f"they are {len(units.size):,} groups" if units.groups is not None else "",
            "use more images or fewer folds",
        )
    weight = [
        _SCALE // max(count, 1)
        for count in np.bincount(units.labels, minlength=units.classes).tolist()
    ]
    counts = [[0] * units.classes for _ in range(folds)]
    total = [0] * folds
    fold_of_unit = np.empty(len(units.size), np.int64)
    groups = sorted(units.order(0), key=lambda unit: -int(units.size[unit]))
    single = [(int(units.unit[row]), {int(units.labels[row]): 1}) for row in units.single()]
    for unit, own in [*((unit, units.whole[unit]) for unit in groups), *single]:

        def cost(fold: int, own: dict[int, int] = own) -> tuple[int, int]:
            more = (
                weight[label] * count * (2 * counts[fold][label] + count)
                for label, count in own.items()
            )
            return sum(more), total[fold]

        fold = min(range(folds), key=cost)
        fold_of_unit[unit] = fold
        for label, count in own.items():
            counts[fold][label] += count
            total[fold] += count
    return fold_of_unit[units.unit]


def joined(*groupings: npt.NDArray[np.int64]) -> Int64s:
    """Join groupings of the same images: images that any of them puts together are together.

    Parameters
    ----------
    *groupings : int64 array, shape (N,)

    Returns
    -------
    int64 array, shape (N,)
        The same number for images of one group: the position of the first of them.

    Examples
    --------
    >>> joined(np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])).tolist()
    [0, 0, 0, 3]
    """
    label = np.arange(len(groupings[0]))
    numbers = [np.unique(groups, return_inverse=True)[1] for groups in groupings]
    while True:
        before = label
        for number in numbers:
            least = np.full(len(label), len(label), np.int64)
            np.minimum.at(least, number, label)
            label = least[number]
        if np.array_equal(label, before):
            return label
