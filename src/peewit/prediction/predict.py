"""Predict the classes of image files of any size and format."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError, UsageError, reason_of
from peewit.evaluation.inference import BATCH
from peewit.evaluation.rejection import NONE
from peewit.images.reader import SUFFIXES
from peewit.system.cpu import usable_cores
from peewit.system.text import printable

if TYPE_CHECKING:
    from peewit.prediction.engines import Engine
    from peewit.prediction.rejecting import Rejector
    from peewit.runs.run import Run

R = TypeVar("R")
STDIN = "-"
READERS = 4  # the maximum number of threads that read pictures
SMALL = 20_000  # bytes; smaller files are read faster than they are handed to another thread
LARGEST_PIPED = 256 * 1024**2  # bytes on standard input, whose size is not known in advance


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture.

    Attributes
    ----------
    name : str
        The picture's path.
    labels : tuple of (str, float)
        The most likely classes with their probabilities, in descending order.
    rejected : bool or None
        Whether it is probably a picture of none of the classes; None if that was not asked.
    """

    name: str
    labels: tuple[tuple[str, float], ...]
    rejected: bool | None = None

    def __str__(self) -> str:
        labels = ", ".join(f"{name} {share:.1%}" for name, share in self.labels)
        if self.rejected:
            labels = f"{NONE} ({labels})"
        # a file name may contain control characters, or forge a line
        return printable(f"{self.name}: {labels}")

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the labels, ready for JSON."""
        asked = {} if self.rejected is None else {"rejected": self.rejected}
        return {
            "image": self.name,
            "labels": [{"class": name, "probability": share} for name, share in self.labels],
            **asked,
        }


@dataclass(frozen=True)
class Source:
    """A picture to read: its name, and either its path or its content."""

    name: str
    content: Path | bytes


def find_pictures(
    arguments: Sequence[str],
    stdin: BinaryIO | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Source]:
    """Return the pictures named by the arguments of a command.

    Parameters
    ----------
    arguments : sequence of str
        Files (of any name), folders, or ``-`` for one picture on ``stdin``. In a folder and its
        subfolders, all files with the suffix of a picture are found, sorted. Links to folders are
        followed, each folder is searched once, and hidden files and folders are left out.
    stdin : binary stream, optional
        Stream to read for ``-``.
    note : callable, optional
        Called with a sentence about each folder of which something was left out.

    Raises
    ------
    PeewitError
        A file or folder is missing, a folder cannot be listed or contains no pictures, or
        ``stdin`` is empty or too large.
    """
    found: list[Source] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN:
            found.append(Source("standard input", _piped(stdin)))
        elif path.is_dir():
            found.extend(Source(str(file), file) for file in _pictures_in(path, note))
        elif path.exists():
            found.append(Source(argument, path))
        else:
            raise PeewitError(
                f"cannot read {argument}", "there is no such file or folder", "check the path"
            )
    return found


def predict(
    run: Run | Engine,
    sources: Iterable[Source | str | Path],
    top: int = 1,
    reject: Rejector | None = None,
) -> Iterator[Prediction | PeewitError]:
    """Predict the classes of pictures, and yield each result as soon as it is available.

    A picture that cannot be read does not stop the others: its error is yielded in its place.

    Parameters
    ----------
    run : Run or Engine
        Each picture is fitted into the input of its network as in training: cropped, padded or
        stretched, and resized with antialiasing.
    sources : iterable of Source, str or Path
        Pictures, as :func:`find_pictures` returns them, or their paths.
    top : int
        Number of classes to return for each picture; all classes if there are fewer.
    reject : Rejector, optional
        Tells which pictures are of none of the classes: ``Rejector(run)``.

    Returns
    -------
    iterator of Prediction or PeewitError
        One per picture, in order.

    Raises
    ------
    UsageError
        ``top`` is less than 1.
    """
    if top < 1:
        raise UsageError(f"top is {top}", "it must be at least 1")
    return _predict(run, sources, top, reject)


def _predict(
    run: Run | Engine,
    sources: Iterable[Source | str | Path],
    top: int,
    reject: Rejector | None,
) -> Iterator[Prediction | PeewitError]:
    from peewit.prediction.engines import Torch
    from peewit.runs.run import Run

    engine = Torch(run) if isinstance(run, Run) else run
    given = (
        item if isinstance(item, Source) else Source(str(item), Path(item)) for item in sources
    )
    for batch in batches(engine, given):
        if isinstance(batch, Unreadable):
            yield batch.error
            continue
        probabilities = engine.probabilities(batch.pixels)
        rejected = reject(batch.pixels, probabilities) if reject else [None] * len(batch.names)
        for name, row, strange in zip(batch.names, probabilities, rejected, strict=True):
            yield Prediction(name, _most_likely(row, engine.class_names, top), strange)


class Batch(NamedTuple):
    """Pictures of the size of a network's input: names, and uint8 pixels (N, H, W, C)."""

    names: list[str]
    pixels: npt.NDArray[np.uint8]


class Unreadable(NamedTuple):
    """A picture that cannot be read, and why."""

    name: str
    error: PeewitError


def batches(engine: Engine, sources: Iterable[Source]) -> Iterator[Batch | Unreadable]:
    """Read pictures in batches, and name those that cannot be read in their place.

    Parameters
    ----------
    engine : Engine
        Decodes the pictures at the size of its network's input.
    sources : iterable of Source
        Taken as they are needed.
    """
    names: list[str] = []
    images: list[npt.NDArray[np.uint8]] = []

    def batch() -> Iterator[Batch]:
        if images:
            yield Batch(names.copy(), np.stack(images))
            names.clear()
            images.clear()

    def prepared(source: Source) -> tuple[str, npt.NDArray[np.uint8] | PeewitError]:
        try:
            return source.name, engine.read(source.content, source.name)
        except PeewitError as error:
            return source.name, error

    for name, image in _map_in_order(prepared, sources):
        if isinstance(image, PeewitError):
            yield from batch()
            yield Unreadable(name, image)
            continue
        if len(images) == BATCH:
            yield from batch()
        names.append(name)
        images.append(image)
    yield from batch()


def _map_in_order(work: Callable[[Source], R], sources: Iterable[Source]) -> Iterator[R]:
    """Yield the result of ``work`` for each picture in order; use threads from a large one on."""
    rest = iter(sources)
    first = list(islice(rest, 2))
    if len(first) == 1:  # nothing to do in parallel
        yield work(first[0])
        return
    rest = chain(first, rest)
    for source in rest:
        if not _is_small(source):
            break
        yield work(source)
    else:
        return
    rest = chain([source], rest)  # from the first large one on
    threads = min(usable_cores(), READERS)
    pool = ThreadPoolExecutor(threads, "peewit-picture")
    waiting: deque[Future[R]] = deque()
    try:
        for item in rest:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also if the caller stops iterating
        pool.shutdown(cancel_futures=True)


def _is_small(source: Source) -> bool:
    if isinstance(source.content, bytes):
        return len(source.content) < SMALL
    try:
        return source.content.stat().st_size < SMALL
    except OSError:  # reading it reports the error; that needs no thread
        return True


def _most_likely(
    probabilities: npt.NDArray[np.float32], class_names: Sequence[str], top: int
) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((class_names[index], float(probabilities[index])) for index in best)


def _pictures_in(folder: Path, note: Callable[[str], None] | None) -> list[Path]:
    def fail(error: OSError) -> None:
        reason = reason_of(error)
        raise PeewitError(
            f"cannot list {error.filename}", reason, "check the permissions of the folder"
        )

    found: list[Path] = []
    left_out: dict[str, list[str]] = {"hidden": [], "not pictures": [], "found twice": []}
    seen: set[tuple[int, int]] = set()
    # links last, so that a picture is found under its own path if that is in the folder as well
    folders = deque([folder])
    while folders:
        for place, names, files in os.walk(folders.popleft(), onerror=fail):
            here = Path(place)
            facts = here.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                left_out["found twice"].append(str(here.relative_to(folder)))
                names.clear()
                continue
            seen.add((facts.st_dev, facts.st_ino))
            visible = sorted(name for name in names if not _is_hidden(name))
            left_out["hidden"] += sorted({*names} - {*visible})
            links = [name for name in visible if (here / name).is_symlink()]
            folders.extend(here / name for name in links)
            names[:] = [name for name in visible if name not in links]
            for name in sorted(files):
                if _is_hidden(name):
                    left_out["hidden"].append(name)
                elif Path(name).suffix.lower() in SUFFIXES and not _is_special(here / name):
                    found.append(here / name)
                else:
                    left_out["not pictures"].append(name)
    sentence = "; ".join(
        f"{len(names)} {why} ({_shortened(names)})" for why, names in left_out.items() if names
    )
    if not found:
        raise PeewitError(
            f"there are no pictures in {folder}",
            "no file in it has the suffix of a picture, such as .png or .jpg"
            + (f"; left out: {sentence}" if sentence else ""),
            "choose another folder, or name the files themselves",
        )
    if sentence and note:
        note(f"left out in {folder}: {sentence}")
    return sorted(found)


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or holds the thumbnails of a file server."""
    return name.startswith(".") or name in ("@eaDir", "__MACOSX", "$RECYCLE.BIN")


def _is_special(file: Path) -> bool:
    """Return whether a file is a pipe or a device, which may have no end."""
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError:  # a broken link: reading it reports that
        return False


def _shortened(names: list[str], most: int = 3) -> str:
    """Return the first names as part of a sentence.

    >>> _shortened(["a", "b", "b", "c", "d"])
    'a, b, c and others'
    """
    different = list(dict.fromkeys(names))
    return ", ".join(different[:most]) + (" and others" if len(different) > most else "")


def _piped(stdin: BinaryIO | None) -> bytes:
    content = stdin.read(LARGEST_PIPED + 1) if stdin else b""
    if not content:
        raise PeewitError("standard input is empty", "", "pipe a picture into it")
    if len(content) > LARGEST_PIPED:
        raise PeewitError(
            "cannot read standard input",
            f"it is larger than {LARGEST_PIPED // 1024**2} MB",
            "give one picture at a time",
        )
    return content
