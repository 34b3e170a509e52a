"""What a Run says of pictures that it has not seen: files of any size and kind -> classes."""

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
# Pictures that are read at the same time, at most; files of fewer bytes are read sooner than handed
# over to another thread
READERS, SMALL = 4, 20_000
# A picture that is piped in has no size to look at first
LARGEST_PIPED = 256 * 1024**2


@dataclass(frozen=True)
class Prediction:
    """What one picture was taken for.

    Attributes
    ----------
    name : str
        The picture's path.
    labels : tuple of (str, float)
        The likeliest classes and their probabilities, the best first.
    """

    name: str
    labels: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        likely = ", ".join(f"{name} {share:.1%}" for name, share in self.labels)
        # a picture from anywhere may have any name, also one that forges a line
        return printable(f"{self.name}: {likely}")

    def to_dict(self) -> dict[str, Any]:
        """Return name and labels as JSON has them."""
        return {
            "image": self.name,
            "labels": [{"class": name, "probability": share} for name, share in self.labels],
        }


@dataclass(frozen=True)
class Source:
    """A picture to read: its name, and its path or its content."""

    name: str
    content: Path | bytes


def find_pictures(arguments: Sequence[str], stdin: BinaryIO | None = None) -> list[Source]:
    """Return the pictures that the arguments of a command name.

    Parameters
    ----------
    arguments : sequence of str
        Files (of any name), folders (everything in them and their subfolders that has the suffix
        of a picture, sorted), or ``-`` for one picture on ``stdin``.
    stdin : binary stream, optional
        Where ``-`` is read from.

    Raises
    ------
    PeewitError
        A file or folder is missing or cannot be listed, a folder holds no pictures, or nothing
        (or too much) came on ``stdin``.
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
    """Say what each picture shows, as soon as it is known.

    A picture that cannot be read does not stop the others: its error is given in its place.

    Parameters
    ----------
    run : Run or Engine
        Each picture is resized whole (antialiased, not cropped) to what its network reads.
    sources : iterable of Source, str or Path
        Pictures, as :func:`find_pictures` returns them, or their paths.
    top : int
        How many classes to name for each picture; all where there are fewer.

    Returns
    -------
    iterator of Prediction or PeewitError
        One a picture, in order.

    Raises
    ------
    UsageError
        ``top`` is less than 1.
    """
    if top < 1:
        raise UsageError(f"cannot name the {top} likeliest classes", "", "give 1 or more")
    return _predict(run, sources, top)


def _predict(
    run: Run | Engine, sources: Iterable[Source | str | Path], top: int
) -> Iterator[Prediction | PeewitError]:
    from peewit.prediction.engines import Torch
    from peewit.runs.run import Run

    engine = Torch(run) if isinstance(run, Run) else run
    # pictures that wait to go through the network together, already in its size
    names: list[str] = []
    images: list[npt.NDArray[Any]] = []

    def answers() -> Iterator[Prediction]:
        if images:
            probabilities = engine.probabilities(np.stack(images))
            for name, row in zip(names, probabilities, strict=True):
                yield Prediction(name, _likeliest(row, engine.class_names, top))
            names.clear()
            images.clear()

    def small(source: Source, limit: int) -> npt.NDArray[Any]:
        return engine.prepare(read_picture(source.content, source.name, limit=limit))

    def prepared(source: Source) -> tuple[str, npt.NDArray[Any] | PeewitError]:
        try:
            return source.name, each_in_turn(partial(small, source))
        except PeewitError as error:
            return source.name, error

    given = (
        item if isinstance(item, Source) else Source(str(item), Path(item)) for item in sources
    )
    for name, image in _side_by_side(prepared, given):
        if isinstance(image, PeewitError):
            yield from answers()
            yield image
            continue
        # those that were resized are of another type than those that fitted
        if len(images) == BATCH or (images and image.dtype != images[0].dtype):
            yield from answers()
        names.append(name)
        images.append(image)
    yield from answers()


def _side_by_side(work: Callable[[Source], R], sources: Iterable[Source]) -> Iterator[R]:
    """Give the result of ``work`` for each picture, in order, several large ones at a time."""
    rest = iter(sources)
    first = list(islice(rest, 2))
    if len(first) == 1:  # there is nothing beside it
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
    finally:  # also where nobody asks for the rest
        pool.shutdown(cancel_futures=True)


def _is_small(source: Source) -> bool:
    if isinstance(source.content, bytes):
        return len(source.content) < SMALL
    try:
        return source.content.stat().st_size < SMALL
    except OSError:  # which is said sooner than handed over
        return True


def _likeliest(
    probabilities: npt.NDArray[np.float32], class_names: Sequence[str], top: int
) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple((class_names[index], float(probabilities[index])) for index in best)


def _pictures_in(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        reason = reason_of(error)
        raise PeewitError(f"cannot list {error.filename}", reason, "check the folder's rights")

    # os.walk does not follow links to folders, so a link to a parent cannot trap it
    found = [
        Path(place) / name
        for place, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    if not found:
        raise PeewitError(
            f"there are no pictures in {folder}",
            "no file in it ends in .png, .jpg or the like",
            "choose another folder, or name the files themselves",
        )
    return sorted(found)


def _piped(stdin: BinaryIO | None) -> bytes:
    content = stdin.read(LARGEST_PIPED + 1) if stdin else b""
    if not content:
        raise PeewitError("nothing came on standard input", "", "pipe a picture in")
    if len(content) > LARGEST_PIPED:
        raise PeewitError(
            "cannot read standard input",
            f"it is larger than {LARGEST_PIPED // 1024**2} MB",
            "give one picture at a time",
        )
    return content
