"""Predictions for very many pictures: one Parquet file for each shard of them.

A shard is an archive of pictures, or a thousand picture files. Each is classified by itself, with
batches that do not depend on anything else, so the answers are the same, bit for bit, whether one
process classifies all shards or many machines share them. A finished file is complete: it is
renamed when it is, so a job that was stopped goes on with the shards that have none.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from peewit.data.archives import LARGEST, is_archive
from peewit.data.members import DAMAGE
from peewit.errors import PeewitError, UsageError, reason_of
from peewit.images.reader import SUFFIXES
from peewit.prediction.predict import Source, Unreadable, batches, find_pictures
from peewit.system.files import replacing
from peewit.system.text import printable

if TYPE_CHECKING:
    from peewit.prediction.engines import Engine
    from peewit.runs.run import Run

PICTURES = 1_000  # files in a shard of files


@dataclass(frozen=True)
class Shard:
    """Pictures that are classified together.

    Parameters
    ----------
    name : str
        Of its Parquet file, without the suffix.
    content : str or tuple of str
        The path or fsspec address of an archive, or the paths of picture files.
    """

    name: str
    content: str | tuple[str, ...]

    def sources(self) -> Iterator[Source]:
        """Yield the pictures, which are read one after the other.

        Raises
        ------
        PeewitError
            The archive cannot be read.
        """
        if isinstance(self.content, str):
            yield from _pictures_in(self.content)
        else:
            yield from (Source(name, Path(name)) for name in self.content)


class Counts(NamedTuple):
    """How many pictures of a shard were classified, and how many could not be read."""

    classified: int
    unreadable: int


def find_shards(arguments: Sequence[str], note: Callable[[str], None]) -> list[Shard]:
    """Return the shards that the arguments of a command name.

    Parameters
    ----------
    arguments : sequence of str
        Archives (tar, zip), addresses of tar archives for fsspec ("s3://..."), folders with
        archives, and files and folders of pictures.
    note : callable
        Called with a sentence about what was left out.

    Raises
    ------
    PeewitError
        A file or folder is missing, or contains no pictures.
    """
    archives: list[str] = []
    others: list[str] = []
    for argument in arguments:
        path = Path(argument)
        inside = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if "://" in argument:
            archives.append(argument)
        elif inside and all(_is_archive(one) for one in inside):
            archives += map(str, inside)
        else:
            others.append(argument)
    files = [source.name for source in find_pictures(others, note=note)]
    contents: list[str | tuple[str, ...]] = [*archives]
    contents += [tuple(files[at : at + PICTURES]) for at in range(0, len(files), PICTURES)]
    return [Shard(f"{number:06}-{_stem(one)}", one) for number, one in enumerate(contents)]


def share(shards: Sequence[Shard], text: str) -> list[Shard]:
    """Return the shards of one of several jobs.

    Examples
    --------
    >>> [shard.name for shard in share([Shard(name, name) for name in "abcde"], "2/3")]
    ['b', 'e']
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text!r} is not a number of a job, such as 2/8 (1/8 to 8/8)")
    return list(shards[int(found[1]) - 1 :: int(found[2])])


def output(shard: Shard, out: Path) -> Path:
    """Return the Parquet file of a shard; if it exists, it is complete."""
    return out / f"{shard.name}.parquet"


def classify(run: Run, engine: Engine, shard: Shard, out: Path, *, features: bool) -> Counts:
    """Classify the pictures of a shard, and write them to a Parquet file.

    Its columns are ``path``, ``label``, ``probabilities`` (float32, in the order of the classes in
    the schema's metadata ``classes``), ``features`` if they are requested, and ``error``, the
    reason if the picture cannot be read.

    Parameters
    ----------
    run : Run
    engine : Engine
        Of the run.
    shard : Shard
    out : Path
        The folder.
    features : bool
        Whether to add the input of the network's last layer, float32.

    Raises
    ------
    PeewitError
        The archive cannot be read, or the file cannot be written. There is no file then.
    """
    rows = _Rows()
    encode = None
    if features:
        from peewit.prediction.similar import last_features

        encode = last_features(run)
    for batch in batches(engine, shard.sources()):
        if isinstance(batch, Unreadable):
            rows.add(batch.name, None, None, str(batch.error))
            continue
        probabilities = engine.probabilities(batch.pixels)
        encoded = encode(batch.pixels) if encode else [None] * len(batch.names)
        for name, row, vector in zip(batch.names, probabilities, encoded, strict=True):
            rows.add(name, row, vector, None)
    _write(output(shard, out), rows, run.class_names, features)
    unreadable = sum(error is not None for error in rows.errors)
    return Counts(len(rows.paths) - unreadable, unreadable)


class _Rows:
    """The columns of a table."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.probabilities: list[Any] = []
        self.features: list[Any] = []
        self.errors: list[str | None] = []

    def add(self, path: str, probabilities: Any, features: Any, error: str | None) -> None:
        self.paths.append(printable(path))
        self.probabilities.append(probabilities)
        self.features.append(features)
        self.errors.append(error)


def check_pyarrow(out: Path) -> None:
    """Raise PeewitError if Parquet files cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise PeewitError(
            f"cannot write to {out}",
            "Parquet needs the package pyarrow",
            "install it: pip install 'peewit[parquet]'",
        ) from error


def _write(path: Path, rows: _Rows, class_names: Sequence[str], features: bool) -> None:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = [
        None if row is None else class_names[int(np.argmax(row))] for row in rows.probabilities
    ]
    columns = {
        "path": pa.array(rows.paths, pa.string()),
        "label": pa.array(labels, pa.string()),
        "probabilities": pa.array(rows.probabilities, pa.list_(pa.float32())),
    }
    if features:
        columns["features"] = pa.array(rows.features, pa.list_(pa.float32()))
    columns["error"] = pa.array(rows.errors, pa.string())
    table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(list(class_names))})
    with replacing(path) as partial:
        pq.write_table(table, partial)


def _stem(content: str | tuple[str, ...]) -> str:
    """Return a name for the file of a shard."""
    if not isinstance(content, str):
        return "files"
    stem = re.split(r"[/\\]", content)[-1].split(".")[0]
    return re.sub(r"[^\w-]", "_", stem) or "archive"


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_archive(file.read(512))
    except OSError:  # reported by find_pictures
        return False


def _pictures_in(place: str) -> Iterator[Source]:
    """Yield the pictures of an archive in its order."""
    try:
        with _opened(place) as file:
            if zipfile.is_zipfile(file):
                yield from _zipped(place, file)
            else:
                file.seek(0)
                yield from _tarred(place, file)
    except (*DAMAGE, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        damage = isinstance(error, OSError) and error.strerror
        reason = reason_of(error) if isinstance(error, OSError) and damage else "it is damaged"
        raise PeewitError(f"cannot read {place}", reason, "download or copy it again") from error


def _opened(place: str) -> BinaryIO:
    if "://" not in place:
        return Path(place).open("rb")
    try:
        import fsspec
    except ImportError as error:
        raise PeewitError(
            f"cannot read {place}",
            "addresses need the package fsspec",
            "install it: pip install 'peewit[remote]'",
        ) from error
    try:
        file: BinaryIO = fsspec.open(place, "rb").open()
    except (ValueError, ImportError) as error:  # an unknown protocol, or one that needs a package
        raise PeewitError(f"cannot read {place}", str(error)) from error
    return file


def _tarred(place: str, file: BinaryIO) -> Iterator[Source]:
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for info in tar:
            tar.members = []  # type: ignore[attr-defined]  # or it keeps all of them
            if info.isreg() and _is_picture(info.name):
                yield _source(place, info.name, info.size, tar.extractfile(info))


def _zipped(place: str, file: BinaryIO) -> Iterator[Source]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir() and _is_picture(info.filename):
                with archive.open(info) as content:
                    yield _source(place, info.filename, info.file_size, content)


def _source(place: str, name: str, size: int, content: Any) -> Source:
    # the member is larger than any picture: its first byte is no picture either
    return Source(f"{place}/{name}", content.read(size if size <= LARGEST else 1))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")
