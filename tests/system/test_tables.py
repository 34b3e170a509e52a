"""Tables: whole or not at all, UTF-8, and without formulas for spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from peewit.system.tables import file_cell, text_cell, write_csv


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "=", "-1 "])
def test_a_cell_is_never_a_formula(text: str) -> None:
    assert text_cell(text) == "'" + text
    assert file_cell(text) == "./" + text  # the same file


@pytest.mark.parametrize("text", ["cat", "", "-1", "+2.5", "a=b", "猫", "./=x"])
def test_other_cells_are_unchanged(text: str) -> None:
    assert text_cell(text) == file_cell(text) == text


def test_any_text_is_read_back(tmp_path: Path) -> None:
    rows = [["a,b", 'say "x"'], ["two\nlines", "猫"]]
    write_csv(tmp_path / "a.csv", ["first", "second"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["first", "second"], *rows]


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["file"], [["caf\udce9.jpg"]])
    assert (tmp_path / "a.csv").read_bytes() == b"file\ncaf\\udce9.jpg\n"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    rows = (["a"] if number else [1 / number] for number in (1, 0))
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ["file"], rows)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
