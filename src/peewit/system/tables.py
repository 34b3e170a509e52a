"""Write tables as CSV files that spreadsheets can open safely."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peewit.system.files import cannot_write, replacing

# Spreadsheets take a cell that begins with one of these as a formula, which can start programs
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def text_cell(text: str) -> str:
    """Return ``text`` for a cell: with a leading apostrophe if it could be a formula.

    The apostrophe is the protection that OWASP recommends against CSV injection. Numbers are
    unchanged.

    >>> text_cell("cat"), text_cell("=1+1"), text_cell("-1"), text_cell("-x")
    ('cat', "'=1+1", '-1', "'-x")
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def file_cell(name: str) -> str:
    """Return the name of a file for a cell: one that could be a formula begins with ``./``.

    So it still names the same file.

    >>> file_cell("cats/a.jpg"), file_cell("=a.jpg"), file_cell("-1")
    ('cats/a.jpg', './=a.jpg', '-1')
    """
    return f"./{name}" if text_cell(name) != name else name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    # float() accepts spaces around a number
    return text == text.strip()


@contextmanager
def csv_writer(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[object]], None]]:
    """Yield a function that writes a row; the file appears, whole, when the block ends.

    UTF-8 with line feeds. What UTF-8 cannot express, in a file name of other bytes, is written as
    ``\\udce9``. If the block fails, ``path`` is unchanged.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        write = csv.writer(file, lineterminator="\n").writerow

        def write_row(row: Sequence[object]) -> None:
            try:
                write(row)
            except OSError as error:
                raise cannot_write(path, error) from error

        write_row(header)
        yield write_row


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file; see ``csv_writer``."""
    with csv_writer(path, header) as write_row:
        for row in rows:
            write_row(row)
