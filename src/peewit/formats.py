"""What is said of a file that was not written by this Peewit, or not wholly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peewit.errors import PeewitError, reason_of


def check_format(file: Path, found: Any, known: int) -> None:
    """Refuse a file of a format that is newer than this Peewit knows, or of none.

    Examples
    --------
    >>> check_format(Path("run.json"), 1, known=1)
    """
    if not isinstance(found, int):
        raise damaged(file, "it does not say which format it has")
    if found > known:
        raise PeewitError(
            f"cannot read {file}",
            f"a newer Peewit wrote it (format {found}, this one reads up to {known})",
            "upgrade with pip install --upgrade peewit",
        )


def cannot_read(file: Path, error: OSError) -> PeewitError:
    """Return the sentence for a failed read: which file, and why."""
    return PeewitError(f"cannot read {file}", reason_of(error))


def damaged(file: Path, why: str) -> PeewitError:
    """Return the sentence for a file whose content is not what it should be."""
    return PeewitError(f"cannot read {file}", why, "put a whole copy in its place")
