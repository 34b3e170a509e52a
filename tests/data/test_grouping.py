"""Groups of pictures by a column or a regular expression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peewit.data import grouping
from peewit.data.grouping import groups_of
from peewit.data.listing import Listing
from peewit.data.sources import load
from peewit.errors import UsageError

NAMES = ["0/ann-1.jpg", "1/ann-2.jpg", "0/bob-1.jpg", "1/bob-2.jpg", "1/x.jpg", "0/y.jpg"]


class NoFiles:
    """Files that no test reads."""

    def read(self, number: int) -> bytes:
        raise NotImplementedError


def listing(names: list[str] = NAMES, **columns: list[str]) -> Listing:
    zeros = np.zeros(len(names), np.int64)
    return Listing(
        place=Path(),
        names=names,
        labels=zeros,
        class_names=["a", "b"],
        files=NoFiles(),
        stamps=np.zeros((len(names), 2), np.int64),
        parts=zeros.astype(np.uint8),
        columns=columns,
    )


def test_the_first_group_or_the_whole_match_is_the_name() -> None:
    groups, note = groups_of(listing(), "([a-z]+)-[0-9]")
    assert groups.tolist() == [0, 0, 1, 1, 2, 3]
    assert note.startswith("2 groups of pictures (ann, bob)")
    assert "2 pictures belong to none" in note
    assert groups_of(listing(), "ann|bob")[0].tolist() == [0, 0, 1, 1, 2, 3]
    # an optional group that took no part in the match
    assert groups_of(listing(), "(zoe)?-[12]")[0].tolist() == [0, 1, 0, 1, 2, 3]


def test_a_column_comes_before_an_expression() -> None:
    people = ["p", "q", "p", "q", "", ""]
    assert groups_of(listing(ann=people), "ann")[0].tolist() == [0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("(", "not a regular expression"),
        ("patient", "none of the names"),
        ("jpg", "one group, 'jpg'"),
        ("(.*)", "a group of its own"),
        ("(?P<a>.)(?P<a>.)", "not a regular expression"),
    ],
)
def test_what_cannot_group(by: str, why: str) -> None:
    with pytest.raises(UsageError, match=r"cannot group the pictures by") as error:
        groups_of(listing(person=["a"] * 6), by)
    assert why in str(error.value)
    assert "person" in str(error.value)


def test_one_group_in_a_column() -> None:
    with pytest.raises(UsageError, match="one group"):
        groups_of(listing(person=["a"] * 6), "person")


def test_an_expression_of_exponential_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "LONGEST", 1.0)
    with pytest.raises(UsageError, match="takes more than 1 s"):
        groups_of(listing(["a" * 60, "b", "c"]), "(a+)+$b")


def test_names_that_are_not_utf_8() -> None:
    groups, _ = groups_of(listing(["a\udcff1", "a\udcff2", "b1", "b2"]), "[a-z\udcff]+")
    assert groups.tolist() == [0, 0, 1, 1]


def test_a_folder_is_loaded_with_groups(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in NAMES[:4]:
            file = tmp_path / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)
    splits = load(str(tmp_path), group="([a-z]+)-")
    assert splits.test is not None
    both = [part.groups.tolist() for part in splits[:2] if part.groups is not None]
    # numbered together, so that a person in both parts is found
    assert sorted(both[0]) == sorted(both[1]) == [0, 0, 1, 1]
    assert any("2 groups" in note for note in splits.notes)


def test_named_sources_have_no_groups() -> None:
    with pytest.raises(UsageError, match="cannot be grouped"):
        load("digits", group="a")
