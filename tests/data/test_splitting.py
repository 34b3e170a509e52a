"""Splits: stratified, groups whole, and a function of the names and the seed alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from peewit.data.dataset import Dataset
from peewit.data.splitting import joined
from peewit.errors import PeewitError


def made(labels: object, groups: object = None, names: list[str] | None = None) -> Dataset:
    """Return a data set of tiny pictures with these labels, groups and names."""
    numbers = np.asarray(labels, np.int64)
    return Dataset(
        np.zeros((len(numbers), 1, 1, 1), np.uint8),
        numbers,
        [f"class {n}" for n in range(int(numbers.max()) + 1)],
        names=names or [f"{label}/{row}.jpg" for row, label in enumerate(numbers.tolist())],
        groups=None if groups is None else np.asarray(groups, np.int64),
    )


def persons(count: int, classes: int = 10, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return labels and groups of persons with one to three pictures of most classes."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 4, (count, classes))
    rows = [(c, p) for p in range(count) for c in range(classes) for _ in range(int(numbers[p, c]))]
    return [c for c, _ in rows], [p for _, p in rows]


def shares(parts: tuple[Dataset, Dataset]) -> npt.NDArray[np.float64]:
    rest, off = (part.class_counts for part in parts)
    return off / np.maximum(rest + off, 1)


def test_each_class_has_its_share() -> None:
    parts = made([0] * 50 + [1] * 20 + [2] * 5).split(0.2)
    assert parts[1].class_counts.tolist() == [10, 4, 1]


def test_a_split_is_the_same_everywhere() -> None:
    # fixed: other versions of Python and NumPy must find the same pictures
    _, off = made([0] * 6 + [1] * 6).split(0.34, seed=3)
    assert off.names == ["0/0.jpg", "0/3.jpg", "1/8.jpg", "1/11.jpg"]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    data = made([0] * 30 + [1] * 30)
    shuffled = data.take(np.random.default_rng(1).permutation(60))
    assert set(data.split(0.2)[1].names or ()) == set(shuffled.split(0.2)[1].names or ())
    assert set(data.split(0.2, 1)[1].names or ()) != set(data.split(0.2)[1].names or ())


@pytest.mark.parametrize("paired", [False, True])
def test_an_added_picture_moves_hardly_any(paired: bool) -> None:
    labels, rows = [0] * 100 + [1] * 100, np.arange(200)
    data = made(labels, rows // 2 if paired else None)
    less = data.take(np.delete(rows, 60))
    moved = set(data.split(0.2)[1].names or ()) ^ set(less.split(0.2)[1].names or ())
    assert len(moved) <= 4


def test_without_names_and_groups_the_split_is_that_of_earlier_versions() -> None:
    labels = np.arange(12) % 2
    data = Dataset(np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1), labels, ["a", "b"])
    assert data.split(0.34, 0)[1].images.ravel().tolist() == [4, 6, 9, 11]


@pytest.mark.parametrize("count", [5, 12, 60])
def test_groups_stay_whole_and_classes_balanced(count: int) -> None:
    data = made(*persons(count))
    parts = data.split(0.2)
    groups = [set(part.groups.tolist()) for part in parts if part.groups is not None]
    assert not groups[0] & groups[1]
    assert abs(len(parts[1]) / len(data) - 0.2) < (0.05 if count > 5 else 0.15)
    if count == 60:
        assert np.abs(shares(parts) - 0.2).max() < 0.1


def test_large_groups_are_neither_preferred_nor_avoided() -> None:
    # a part of near-duplicates only would not be a sample of the pictures
    groups = np.concatenate([np.repeat(np.arange(50), 4), np.arange(1000, 1200)])
    data = made(np.arange(400) % 2, groups)
    sizes = [np.unique(part.groups, return_counts=True)[1] for part in data.split(0.2)]
    rest, off = ((size == 4).sum() * 4 / size.sum() for size in sizes)
    assert 0.35 < off < 0.65
    assert 0.35 < rest < 0.65
    assert data.split(0.2)[1].class_counts.tolist() == [40, 40]


def test_a_class_is_never_split_off_completely() -> None:
    labels, groups = [0] * 20 + [1] * 4, [*range(20), 100, 100, 100, 101]
    for seed in range(20):
        for fraction in (0.2, 0.9):
            rest, _ = made(labels, groups).split(fraction, seed)
            assert rest.class_counts.min() >= 1


def test_a_class_in_one_group_stays_for_training() -> None:
    rest, _ = made([0] * 20 + [1] * 4, list(range(20)) + [99] * 4).split(0.9)
    assert rest.class_counts[1] == 4


def test_two_groups_can_be_split() -> None:
    rest, off = made([0, 1, 0, 1], [1, 1, 2, 2]).split(0.1)
    assert (len(rest), len(off)) == (2, 2)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(PeewitError, match="one part would be empty, because groups"):
        made([0, 1, 0], [1, 1, 1]).split(0.5)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_folds_hold_each_picture_once_and_are_alike(count: int) -> None:
    data = made([0] * 30 + [1] * 20 + [2] * 11)
    fold = data.folds(count)
    table = np.array([np.bincount(data.labels[fold == f], minlength=3) for f in range(count)])
    assert (table.max(0) - table.min(0)).max() <= 1
    assert np.ptp(table.sum(1)) <= 1
    assert data.folds(count).tolist() == fold.tolist()
    assert data.folds(count, 1).tolist() != fold.tolist()


def test_folds_keep_groups_whole() -> None:
    labels, groups = persons(23)
    data = made(labels, groups)
    fold = data.folds(5)
    assert all(len(set(fold[np.array(groups) == person])) == 1 for person in set(groups))
    table = np.array([np.bincount(data.labels[fold == f], minlength=10) for f in range(5)])
    assert (table > 0).all()
    assert np.ptp(table.sum(1)) < 0.1 * len(data)


def test_more_folds_than_groups() -> None:
    with pytest.raises(PeewitError, match="2 groups"):
        made([0, 1, 0, 1], [1, 1, 2, 2]).folds(3)


def test_joined_groups_are_connected_by_either() -> None:
    chain = np.arange(100) // 2, (np.arange(100) + 1) // 2
    assert set(joined(*chain).tolist()) == {0}
    apart = joined(np.array([3, 3, 5, 6]), np.array([0, 1, 2, 2]))
    assert apart.tolist() == [0, 0, 2, 2]


def test_many_groups_take_little_time() -> None:
    labels = np.arange(20_000) % 10
    data = made(labels, np.arange(20_000) // 2)
    rest, off = data.split(0.1)
    assert len(off) == 2_000
    assert len(rest) == 18_000
