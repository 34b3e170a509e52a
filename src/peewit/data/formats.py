"""Recognise the kind of a source of pictures, and list them."""

from __future__ import annotations

from pathlib import Path

from peewit.data.cifar import layouts
from peewit.data.listing import Listing
from peewit.errors import PeewitError, reason_of

_TABLES = (".csv", ".tsv")
_ZIPPED = b"PK\3\4"


def listing_of(path: Path) -> Listing | None:
    """List the pictures of a folder, a table or an archive, without decoding them.

    Parameters
    ----------
    path : Path
        A folder of class folders, or one with ``metadata.csv``, Parquet files or tar shards; a CSV
        or Parquet table; a zip archive or a tar archive, compressed or not.

    Returns
    -------
    Listing or None
        None if it is none of these, so that it may be CIFAR.

    Raises
    ------
    PeewitError
        It cannot be read, or its pictures are not labelled in a known way.
    """
    if path.is_dir():
        return _folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise PeewitError(f"cannot read {path}", reason_of(error)) from error
    from peewit.data import archives, parquet, table

    if start.startswith(parquet.MAGIC):
        return parquet.list_parquet(path, [path])
    if archives.is_archive(start):
        return archives.list_archive(path)
    if path.suffix.lower() in _TABLES and start:
        return table.list_csv(path)
    return None


def is_npz(path: Path) -> bool:
    """Return whether a path is that of a file of NumPy arrays."""
    return path.suffix.lower() == ".npz" and path.is_file()


def _folder(path: Path) -> Listing | None:
    from peewit.data import folder, parquet, shards, table

    cifar = {file for layout in layouts.LAYOUTS for file in layout.files}
    if any((path / file).is_file() for file in cifar):
        return None
    try:
        listing = table.list_metadata(path) or folder.list_folder(path)
        paths = parquet.parquet_files(path) if listing is None else []
        archives = shards.tar_files(path) if listing is None and not paths else []
    except OSError as error:
        raise PeewitError(f"cannot read {path}", reason_of(error)) from error
    if archives:
        return shards.list_shards(path, archives)
    return parquet.list_parquet(path, paths) if paths else listing
