"""The parts of a run's images: made once, recorded by file name, found again from the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.near_duplicates import near_duplicates
from peewit.data.splitting import joined
from peewit.data.store import Concatenation
from peewit.errors import PeewitError

# The share of the images that is held out for the test if the source has no test part
TEST_FRACTION = 0.2
TRAINING, VALIDATION, TEST, FOLD, LEFT_OUT = "training", "validation", "test", "fold", "left out"
# The largest share of the pictures that near-duplicates may link into one group
LARGEST = 0.2
# The most pictures among which near-duplicates are looked for: 26,826 took 20 s on two cores
COMPARED = 30_000
# Pictures that a sentence names
NAMED = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Division:
    """How the images of a run are divided.

    Parameters
    ----------
    dataset : Dataset
        The images for training and validation.
    test : Dataset or None
        The images for the final test.
    validation : bool array, shape (N,)
        Which images of ``dataset`` are held out for validation.
    folds : int64 array, shape (N,), or None
        The fold of each image of ``dataset`` in cross-validation, from 0.
    missing : sequence of str
        Recorded images that the source no longer has.
    added : sequence of str
        Images of the source that are not recorded, and therefore in no part.
    """

    dataset: Dataset
    test: Dataset | None
    validation: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64] | None = None
    missing: Sequence[str] = ()
    added: Sequence[str] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return the name and the part of each image; empty if they have no names."""
        found: list[tuple[str, str]] = []
        if self.dataset.names is not None:
            if self.folds is not None:
                parts = [f"{FOLD} {fold + 1}" for fold in self.folds.tolist()]
            else:
                parts = [VALIDATION if held else TRAINING for held in self.validation.tolist()]
            found += zip(self.dataset.names, parts, strict=True)
        if self.test is not None and self.test.names is not None:
            found += [(name, TEST) for name in self.test.names]
        return found


def divide(
    dataset: Dataset,
    test: Dataset | None,
    *,
    seed: int,
    validation_fraction: float | None,
    folds: int = 0,
) -> Division:
    """Divide the images of a source.

    Images with names and without a test part give a fifth to a test part, unless there are folds.

    Parameters
    ----------
    dataset : Dataset
    test : Dataset or None
        The test part of the source.
    seed : int
    validation_fraction : float or None
        The share of the training images to hold out for validation; None for none.
    folds : int
        Number of folds of a cross-validation; 0 for none.

    Raises
    ------
    PeewitError
        The images are too few, or in too few groups.
    """
    none = np.zeros(len(dataset), bool)
    if folds:
        number = dataset.folds(folds, seed)
        return Division(dataset=dataset, test=None, validation=none, folds=number)
    if test is None and dataset.names is not None:
        dataset, test = dataset.split(TEST_FRACTION, seed)
        none = np.zeros(len(dataset), bool)
    if validation_fraction is None:
        return Division(dataset=dataset, test=test, validation=none)
    validation = dataset.validation_mask(validation_fraction, seed)
    return Division(dataset=dataset, test=test, validation=validation)


def as_recorded(parts: Mapping[str, str], train: Dataset, test: Dataset | None) -> Division:
    """Divide the images of a source as a run's record says.

    Parameters
    ----------
    parts : mapping of str to str
        The part of each image, as ``Division.rows`` names it.
    train, test : Dataset
        The parts of the source. The test part of the run may have been held out of ``train``.

    Returns
    -------
    Division
        In the order of the record.

    Raises
    ------
    PeewitError
        None of the recorded images is there.
    """
    tested = [name for name, part in parts.items() if part == TEST]
    of_source = test is not None and not set(tested).isdisjoint(test.names or ())
    pool = test if of_source and test is not None else train
    row_of, row_of_test = (
        {name: row for row, name in enumerate(part.names or ())} for part in (train, pool)
    )
    found_test = [row_of_test[name] for name in tested if name in row_of_test]
    kept = [name for name, part in parts.items() if part not in (TEST, LEFT_OUT)]
    own = [parts[name] for name in kept if name in row_of]
    missing = [name for name in kept if name not in row_of]
    missing += [name for name in tested if name not in row_of_test]
    if not own:
        raise PeewitError(
            f"{train.origin} has none of the training images of the run",
            "they are recorded by file name",
            "name the folder or table that the run was trained on",
        )
    dataset = train.take([row_of[name] for name in kept if name in row_of])
    folds = None
    if all(part.startswith(f"{FOLD} ") for part in own):
        folds = np.array([int(part.removeprefix(FOLD)) - 1 for part in own], np.int64)
    return Division(
        dataset=dataset,
        test=pool.take(found_test) if found_test else None,
        validation=np.array([part == VALIDATION for part in own], bool),
        folds=folds,
        missing=missing,
        added=[name for name in dict.fromkeys([*row_of, *row_of_test]) if name not in parts],
    )


def near_groups(
    dataset: Dataset, test: Dataset | None, note: Callable[[str], None]
) -> npt.NDArray[np.int64]:
    """Return the groups of near-duplicates among the images of both parts, shape (N + M,).

    Parameters
    ----------
    dataset, test : Dataset
        Decoded.
    note : callable
        Called with a sentence if there are too many pictures to look for near-duplicates; then
        only identical ones are in one group.
    """
    parts = [part for part in (dataset, test) if part is not None]
    if sum(map(len, parts)) > COMPARED:
        note(
            f"more than {COMPARED:,} pictures: only identical ones are kept on one side of a "
            "split, because looking for near-duplicates would take long"
        )
        hashes = np.concatenate([part.image_hashes for part in parts])
        return np.unique(hashes, return_inverse=True)[1].astype(np.int64)
    if test is None:
        return near_duplicates(dataset.images)
    return near_duplicates(Concatenation(dataset.images, test.images))


def with_near_duplicates(
    dataset: Dataset,
    test: Dataset | None,
    note: Callable[[str], None],
    near: npt.NDArray[np.int64] | None = None,
) -> tuple[Dataset, Dataset | None]:
    """Return the data with near-duplicates, in both parts, joined to the groups that there are.

    Parameters
    ----------
    dataset, test : Dataset
        Decoded. Groups that they already have, such as persons, are numbered together.
    note : callable
        Called with a sentence if near-duplicates would link these into one that is too large, or
        if there are too many pictures to look for near-duplicates.
    near : int64 array, shape (N + M,), optional
        The result of `near_groups`, if it is known.
    """
    near = near_groups(dataset, test, note) if near is None else near
    given = [part.groups for part in (dataset, test) if part is not None]
    if given[0] is not None:
        own = np.concatenate([groups for groups in given if groups is not None])
        both = joined(near, own)
        largest, before = (
            int(np.unique(part, return_counts=True)[1].max()) for part in (both, own)
        )
        if largest > max(LARGEST * len(own), before):
            note(
                f"near-duplicates link groups into one of {largest:,} of {len(own):,} pictures, "
                "which no split could divide: only the groups stay whole, and near-duplicates of "
                "different groups may stand on two sides"
            )
            both = own
        near = both
    count = len(dataset)
    return dataset.grouped(near[:count]), None if test is None else test.grouped(near[count:])


def named(names: Sequence[str]) -> str:
    """Return the first of some names for a sentence.

    >>> named(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    'a.jpg, b.jpg, c.jpg, ...'
    """
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
