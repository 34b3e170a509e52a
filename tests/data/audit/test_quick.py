"""Tests of peewit.data.audit.quick."""

from __future__ import annotations

import numpy as np

from peewit.data.audit.quick import SETS, quick_findings
from peewit.data.dataset import Dataset


def pictures(numbers: list[int], labels: list[int], part: str, held: list[int] = ()) -> Dataset:
    """Return pictures that are identical if their numbers are equal."""
    images = np.array(numbers, np.uint8).reshape(-1, 1, 1, 1)
    names = [f"{part}/{place}.png" for place in range(len(numbers))]
    validation = np.isin(np.arange(len(numbers)), held) if held else None
    return Dataset(images, np.array(labels), ["a", "b"], part, names, validation=validation)


def found(train: Dataset, test: Dataset | None, near: list[int], listed: list[str] = ()) -> dict:
    result = quick_findings(listed, ["a note"], train, test, np.array(near))
    assert result["notes"] == ["a note"]
    return {one["kind"]: (one["pictures"], one["sets"]) for one in result["kinds"]}


def test_copies_across_the_parts_of_the_source() -> None:
    train = pictures([1, 2, 3, 4, 1], [0, 0, 0, 1, 0], "train", held=[4])
    test = pictures([2, 9], [0, 1], "test")
    kinds = found(train, test, [0, 1, 2, 3, 0, 1, 3])
    assert kinds == {
        "identical in two parts": (
            4,
            [["train/0.png", "train/4.png"], ["train/1.png", "test/0.png"]],
        ),
        "similar in two parts": (2, [["train/3.png", "test/1.png"]]),
    }


def test_copies_in_one_part_and_under_two_labels() -> None:
    train = pictures([1, 1, 2, 2, 3, 4], [0, 1, 0, 0, 1, 1], "train")
    kinds = found(train, None, [0, 0, 2, 2, 4, 4])
    assert kinds == {
        "identical with two labels": (2, [["train/0.png", "train/1.png"]]),
        "identical": (2, [["train/2.png", "train/3.png"]]),
        "similar": (2, [["train/4.png", "train/5.png"]]),
    }


def test_unreadable_pictures_and_imbalance() -> None:
    train = pictures([1, 2, 3, 4], [0, 0, 0, 1], "train")
    lost = [f"lost/{number}.png" for number in range(SETS + 5)]
    result = quick_findings([*(train.names or ()), *lost], [], train, None, np.arange(4))
    (kind,) = result["kinds"]
    assert kind == {
        "kind": "unreadable",
        "pictures": SETS + 5,
        "sets": [[name] for name in lost[:SETS]],
    }
    assert result["imbalance"] == 3
