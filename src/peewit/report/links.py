"""Links from a report to the picture files of the data, if they are on the same machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from peewit.data.places import SOURCES, expanded

# Tables whose pictures are files beside them. Archives are left out: a browser cannot open a file
# in one.
TABLES = (".csv", ".tsv", ".parquet")


def pictures_folder(source: Mapping[str, Any]) -> Path | None:
    """Return the folder of the picture files of a source; None if they are no files of their own.

    Parameters
    ----------
    source : mapping
        The arguments of ``load`` for the data.
    """
    name = source.get("source")
    if not name or name in SOURCES:
        return None
    place = expanded(Path(name))
    if place.is_dir():
        return place
    return place.parent if place.suffix.lower() in TABLES else None


def link(folder: Path | None, name: str, page: Path) -> str:
    """Return the relative URL of a picture file for an HTML page; empty if there is no such file.

    Relative, so that a folder with data and runs can be moved as a whole.

    Parameters
    ----------
    folder : Path or None
        The folder that contains the picture.
    name : str
        The path of the picture in it.
    page : Path
        The HTML file.
    """
    if folder is None or not (folder / name).is_file():
        return ""
    file = folder / name
    try:
        relative = os.path.relpath(file, page.parent)
    except ValueError:  # on another drive, on Windows
        return file.absolute().as_uri()
    # bytes, because a name may not be valid UTF-8
    return quote(os.fsencode(Path(relative).as_posix()))


def shown(name: str) -> str:
    r"""Return the name of a file as text that UTF-8 can express.

    >>> shown("caf\udce9.jpg")
    'caf\\udce9.jpg'
    """
    return name.encode("utf-8", "backslashreplace").decode()
