"""Predict the classes of image files of any size and format."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError, UsageError, reason_of
from peewit.evaluation.inference import BATCH
from peewit.images.reader import SUFFIXES, each_in_turn, read_picture
from peewit.system.cpu import usable_cores
from peewit.system.text import printable

if TYPE_CHECKING:
    from peewit.prediction.engines import Engine
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
    """

    name: str
    labels: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        labels = ", ".join(f"{name} {share:.1%}" for name, share in self.labels)
        # a file name may contain control characters, or forge a line
        return printable(f"{self.name}: {labels}")

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the labels, ready for JSON."""
        return {
            "image": self.name,
            "labels": [{"class": name, "probability": share} for name, share in self.labels],
        }


@dataclass(frozen=True)
class Source:
    """A picture to read: its name, and either its path or its content."""

    name: str
    content: Path | bytes


def find_pictures(arguments: Sequence[str], stdin: BinaryIO | None = None) -> list[Source]:
    """Return the pictures named by the arguments of a command.

    Parameters
    ----------
    arguments : sequence of str
        Files (of any name), folders (all files with the suffix of a picture in them and their
        subfolders, sorted), or ``-`` for one picture on ``stdin``.
    stdin : binary stream, optional
        Stream to read for ``-``.

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
            found.extend(Source(str(file), file) for file in _pictures_in(path))
        elif path.exists():
            found.append(Source(argument, path))
        else:
            raise PeewitError(
                f"cannot read {argument}", "there is no such file or folder", "check the path"
            )
    return found


def predict(
    run: Run | Engine, sources: Iterable[Source | str | Path], top: int = 1
) -> Iterator[Prediction | PeewitError]:
    """Predict the classes of pictures, and yield each result as soon as it is available.

    A picture that cannot be read does not stop the others: its error is yielded in its place.

    Parameters
    ----------
    run : Run or Engine
        Each picture is resized whole (antialiased, not cropped) to the input size of its network.
    sources : iterable of Source, str or Path
        Pictures, as :func:`find_pictures` returns them, or their paths.
    top : int
        Number of classes to return for each picture; all classes if there are fewer.

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
    return _predict(run, sources, top)


def _predict(
    run: Run | Engine, sources: Iterable[Source | str | Path], top: int
) -> Iterator[Prediction | PeewitError]:
    from peewit.prediction.engines import Torch
    from peewit.runs.run import Run

    engine = Torch(run) if isinstance(run, Run) else run
    # the next batch: pictures already resized to the network's input
    names: list[str] = []
    images: list[npt.NDArray[Any]] = []

    def predict_batch() -> Iterator[Prediction]:
        if images:
            probabilities = engine.probabilities(np.stack(images))
            for name, row in zip(names, probabilities, strict=True):
                yield Prediction(name, _most_likely(row, engine.class_names, top))
            names.clear()
            images.clear()

    def read(source: Source, limit: int) -> npt.NDArray[Any]:
        return engine.prepare(read_picture(source.content, source.name, limit=limit))

    def prepared(source: Source) -> tuple[str, npt.NDArray[Any] | PeewitError]:
        try:
            return source.name, each_in_turn(partial(read, source))
        except PeewitError as error:
            return source.name, error

    given = (
        item if isinstance(item, Source) else Source(str(item), Path(item)) for item in sources
    )
    for name, image in _map_in_order(prepared, given):
        if isinstance(image, PeewitError):
            yield from predict_batch()
            yield image
            continue
        # resized pictures (float32) and others (uint8) cannot share a batch
        if len(images) == BATCH or (images and image.dtype != images[0].dtype):
            yield from predict_batch()
        names.append(name)
        images.append(image)
    yield from predict_batch()


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


def _pictures_in(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        reason = reason_of(error)
        raise PeewitError(
            f"cannot list {error.filename}", reason, "check the permissions of the folder"
        )

    # os.walk does not follow links to folders, so a link to a parent causes no endless loop
    found = [
        Path(place) / name
        for place, _, names in os.walk(folder, onerror=fail)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise PeewitError(
            f"there are no pictures in {folder}",
            "no file in it has the suffix of a picture, such as .png or .jpg",
            "choose another folder, or name the files themselves",
        )
    return sorted(found)


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
