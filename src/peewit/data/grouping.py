"""Group pictures by a column of their table, or by a regular expression on their names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from peewit.data.listing import Listing
from peewit.errors import PeewitError, UsageError

# Some regular expressions, such as (a+)+b, take exponential time, and Python cannot interrupt a
# match. So it is done by another process, which can be ended: 0.1 s to start, and 1 s for a million
# names and a usual expression.
LONGEST = 20.0  # seconds
_MATCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
found = map(re.compile(pattern).search, names)
json.dump([m and (m[1] if m.re.groups and m[1] is not None else m[0]) for m in found], sys.stdout)
"""
_SHOWN = 3


def groups_of(listing: Listing, by: str) -> tuple[npt.NDArray[np.int64], str]:
    """Return the group of each picture, and a sentence about them.

    Parameters
    ----------
    listing : Listing
    by : str
        The name of a column, or a regular expression that is searched in the name of each picture,
        its path below the source with slashes: its first group, or else what it matches, is the
        name of the picture's group. A picture that it does not match, or whose cell is empty, is a
        group of its own.

    Returns
    -------
    int64 array, shape (N,)
    str

    Raises
    ------
    UsageError
        There is no such column and the expression is not valid, takes too long, or matches no
        name; or there is only one group, or each picture is its own.

    Examples
    --------
    >>> from pathlib import Path
    >>> names = ["0/ann-1.jpg", "1/ann-2.jpg", "0/bob-1.jpg", "other.jpg"]
    >>> zeros = np.zeros(4, np.int64)
    >>> listing = Listing(place=Path("."), names=names, labels=zeros, class_names=["a"],
    ...                   files=None, stamps=zeros, parts=zeros)
    >>> groups_of(listing, "([a-z]+)-")[0].tolist()
    [0, 0, 1, 2]
    """
    if by in listing.columns:
        found: Sequence[str | None] = [cell or None for cell in listing.columns[by]]
    else:
        found = _matches(by, listing)
    number: dict[str, int] = {}
    for group in found:
        if group is not None:
            number.setdefault(group, len(number))
    alone = sum(group is None for group in found)
    if not number:
        raise _refused(by, f"it is found in none of the names, such as {listing.names[0]}", listing)
    if len(number) == 1 and not alone:
        raise _refused(by, f"all pictures are in one group, {next(iter(number))!r}", listing)
    if len(number) + alone == len(found):
        raise _refused(by, "every picture would be a group of its own", listing)
    rest = iter(range(len(number), len(number) + alone))
    groups = [next(rest) if group is None else number[group] for group in found]
    shown = ", ".join(list(number)[:_SHOWN]) + (", ..." if len(number) > _SHOWN else "")
    note = f"{len(number):,} groups of pictures ({shown}) stay whole in every split"
    if alone:
        note += f"; {alone:,} pictures belong to none of them"
    return np.array(groups, np.int64), note


def _matches(by: str, listing: Listing) -> list[str | None]:
    try:
        re.compile(by)
    except (re.error, RecursionError, OverflowError) as error:
        raise _refused(by, f"it is not a regular expression ({error})", listing) from error
    try:
        # surrogates of names that are not UTF-8 survive as JSON escapes
        done = subprocess.run(  # noqa: S603  (this interpreter, without a shell)
            [sys.executable, "-I", "-c", _MATCH],
            input=json.dumps([by, list(listing.names)]).encode("ascii"),
            capture_output=True,
            timeout=LONGEST,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        why = f"searching for it in {len(listing):,} names takes more than {LONGEST:.0f} s"
        raise _refused(by, why, listing, "use one without nested repetitions") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeewitError("cannot search the names of the pictures", str(error)) from error
    found: list[str | None] = json.loads(done.stdout)
    return found


def _refused(by: str, why: str, listing: Listing, todo: str = "") -> UsageError:
    columns = ", ".join(listing.columns)
    other = f"a column ({columns}) or " if columns else ""
    return UsageError(
        f"cannot group the pictures by {by!r}",
        why,
        todo or f"give {other}a regular expression such as '([^/]+)_[0-9]+'",
    )
