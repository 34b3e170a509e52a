"""The inference engines of a Run: PyTorch, or a faster runtime if one is installed.

The network is kept beside the weights as an ONNX file, which is written when PyTorch has been
imported anyway, so that later predictions need not import it. Which engine is fastest is
measured once and stored too. An engine whose logits differ from PyTorch's is not used.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.inference import BATCH, augment_uncertain, softmax
from peewit.images.reader import PIXEL_LIMIT
from peewit.images.scaled import read_sized
from peewit.prediction.runtimes import LOADERS, PACKAGES, Floats, Forward, write_network
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.cpu import processor_name, usable_cores
from peewit.system.files import write_text
from peewit.system.validation import read_json

Images = npt.NDArray[np.uint8]
Pictures = npt.NDArray[Any]  # uint8, unprepared; or float32, prepared by an engine

NETWORK, CHOICE = "engine.onnx", "engine.json"
PARALLEL = "PyTorch, a thread a batch"
FORMAT = 1
# Logits of different runtimes differ by 1e-5 at most; a larger difference than this is an error
TOLERANCE = 1e-3
# how many times each engine is measured
TURNS = 3
# An engine that takes more than this many times as long as the fastest one is not measured again
HOPELESS = 3
# Pixels of the pictures that are measured: 64 of 32 x 32, but 16 of 224 x 224
PIXELS = 65_536
# Pictures per work item if there are several threads: enough to make the hand-over negligible, few
# enough that a thread slowed down by background load does not keep the others waiting
PIECE = 16
# With fewer pictures per thread than this, PyTorch is faster with all threads on one batch: on two
# cores 4 pictures of fast-s, in six views, take 6.7 instead of 9.5 ms, but 8 take 15.1 instead of
# 13.7
FEW = 4
# images of a data set on disk that are read at once
AT_ONCE = 2_048


class Engine(Protocol):
    """Computes a Run's logits."""

    name: str
    class_names: tuple[str, ...]
    streams: int  # how many threads may call it at a time for the highest throughput
    piece: int  # how many pictures each of those calls should have

    def read(self, content: str | Path | bytes, name: str, limit: int = PIXEL_LIMIT) -> Images:
        """Decode a picture at the network's input size, as for training.

        Parameters
        ----------
        content, name, limit
            As for ``peewit.images.scaled.read_sized``.

        Returns
        -------
        uint8 array, shape (height, width, C)
        """

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of images (N, H, W, C): float32 (N, classes).

        They are uint8, of any size; or float32, as ``Preprocessing.array`` returns them.
        """

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability, float32 (N, classes)."""


class _OfRun(ABC):
    """The common part of all engines."""

    piece = PIECE  # the most pictures per work item

    def __init__(self, run: Run, streams: int = 1, initializer: Callable[[], None] | None = None):
        self.run, self.streams = run, streams
        self.class_names = run.class_names
        self._pool = (
            ThreadPoolExecutor(streams, "peewit-network", initializer) if streams > 1 else None
        )

    def read(self, content: str | Path | bytes, name: str, limit: int = PIXEL_LIMIT) -> Images:
        """Decode a picture at the network's input size."""
        rule = self.run.preprocessing
        size = {"height": rule.height, "width": rule.width, "channels": rule.channels}
        return read_sized(content, name, **size, fit=rule.fit, limit=limit)

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability."""
        return softmax(self.logits(images, batch_size))

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        if not len(images):
            return np.empty((0, len(self.class_names)), np.float32)
        if not isinstance(images, np.ndarray):  # on disk, perhaps more than fits into memory
            starts = range(0, len(images), AT_ONCE)
            blocks = (np.asarray(images[start : start + AT_ONCE]) for start in starts)
            return np.concatenate([self.logits(block, batch_size) for block in blocks])
        shared = min(batch_size, self.piece, -(-len(images) // self.streams))
        size = shared if self._pool else batch_size
        parts = [images[first : first + size] for first in range(0, len(images), size)]
        if self._pool is None or len(parts) == 1:
            return np.concatenate([self._piece(part) for part in parts])
        return np.concatenate(list(self._pool.map(self._piece, parts)))

    @abstractmethod
    def _piece(self, images: Pictures) -> Floats:
        """Return the logits of one batch."""


class Torch(_OfRun):
    """PyTorch, the reference that all others must agree with.

    Parameters
    ----------
    run : Run
    streams : int
        How many batches are computed at a time: with one thread each if there are several, and
        with all of PyTorch's threads if there is one.
    """

    name = "PyTorch"
    piece = BATCH

    def __init__(self, run: Run, streams: int = 1) -> None:
        import torch

        def alone() -> None:
            # called first, because a thread's first call resets its number of threads
            torch.get_num_threads()
            torch.set_num_threads(1)

        super().__init__(run, streams, alone)
        if self._pool is not None:
            before, all_there = torch.get_num_threads(), Barrier(streams)
            list(self._pool.map(lambda _: all_there.wait(), range(streams)))
            # set_num_threads also changes the number for threads started later
            torch.set_num_threads(before)

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        few = 0 < len(images) < FEW * self.streams
        return self._piece(images) if few else super().logits(images, batch_size)

    def _piece(self, images: Pictures) -> Floats:
        unprepared = images.dtype == np.uint8
        logits = self.run.logits if unprepared else self.run.logits_of_prepared
        return logits(images, len(images))


class Runtime(_OfRun):
    """A runtime that executes the ONNX file; PyTorch is not imported.

    Parameters
    ----------
    name : str
    run : Run
    forward : function
        Prepared pictures, float32 (N, H, W, C), -> logits, (N, classes).
    streams : int
        How many threads call ``forward`` at a time.
    """

    def __init__(self, name: str, run: Run, forward: Forward, streams: int = 1) -> None:
        super().__init__(run, streams)
        self.name, self.forward = name, forward

    def _piece(self, images: Pictures) -> Floats:
        x = self.run.preprocessing.array(images) if images.dtype == np.uint8 else images
        return augment_uncertain(
            *(self.forward, x.__getitem__, self.forward(x), self.run.unsure_below),
            mirror=self.run.recipe.flip != "none",
            batch_size=len(x),
        )


def fastest(run: Run, batch_size: int = BATCH) -> Engine:
    """Return the fastest engine for ``run`` with ``batch_size`` pictures at a time.

    Parameters
    ----------
    run : Run
        With weights.
    batch_size : int
        1 asks for the lowest latency, more for the highest throughput.

    Returns
    -------
    Engine
        Measured once, if the result can be written to the run folder.
    """
    installed = [name for name, package in PACKAGES.items() if find_spec(package)]
    stamp = _stamp(run, installed)
    kind = "one" if batch_size == 1 else "many"
    if stamp is None or (kind == "one" and not installed):
        return Torch(run)
    known = _known(run, stamp)
    if kind not in known:
        measured = _measured(run, installed, batch_size)
        if kind == "one" and len(measured) > 1:
            # a single prediction usually runs in a new process, where importing PyTorch takes
            # longer than a thousand predictions
            del measured["PyTorch"]
        known = known | {kind: min(measured, key=lambda name: measured[name])}
        with suppress(PeewitError):  # a read-only folder: measured again next time
            conditions = {"format": FORMAT, "measured": stamp, "network": _checksum(run)}
            write_text(run.path / CHOICE, json.dumps(conditions | known) + "\n")
    name = known[kind]
    if name in installed:
        with suppress(PeewitError):
            return runtime(name, run, many=kind == "many")
    return Torch(run, usable_cores() if name == PARALLEL else 1)


def runtime(name: str, run: Run, *, many: bool = False) -> Runtime:
    """Return the engine ``name`` over the ONNX file in the run's folder.

    Parameters
    ----------
    name : str
        One of ``PACKAGES``.
    run : Run
    many : bool
        Whether to optimise for throughput instead of latency.

    Raises
    ------
    PeewitError
        The file cannot be read, or the runtime does not load.
    """
    try:
        content = (run.path / NETWORK).read_bytes()
        engine = Runtime(name, run, *LOADERS[name](content, many))
        # in this thread only: if two threads make the first call of OpenVINO in a process, they can
        # deadlock, one holding Python's lock and the other that of OpenVINO's module
        rule = run.preprocessing
        engine.forward(np.zeros((1, rule.height, rule.width, rule.channels), np.float32))
        return engine
    except (ImportError, AttributeError) as error:  # installed, but it does not load
        raise PeewitError(f"cannot use {name}", str(error), "reinstall it") from error
    except (OSError, RuntimeError, ValueError) as error:  # the runtimes' own are RuntimeErrors
        raise PeewitError(f"cannot use {run.path / NETWORK}", str(error)) from error


def _stamp(run: Run, installed: list[str]) -> str | None:
    """Identify the conditions of a choice: weights (size and time), machine and runtimes."""
    try:
        facts = (run.path / runfolder.WEIGHTS).stat()
    except OSError:
        return None
    weights = f"weights {facts.st_size}-{facts.st_mtime_ns}"
    return f"{weights}, {processor_name()}, {usable_cores()} cores, {', '.join(installed)}"


def _known(run: Run, stamp: str) -> dict[str, Any]:
    """Return the fastest engines, if they were measured under the same conditions."""
    try:
        found = read_json(run.path / CHOICE)
    except PeewitError:
        return {}
    conditions = {"format": FORMAT, "measured": stamp, "network": _checksum(run)}
    if any(found.get(name) != value for name, value in conditions.items()):
        return {}
    names = ["PyTorch", PARALLEL, *(PACKAGES if (run.path / NETWORK).is_file() else ())]
    return {kind: found[kind] for kind in ("one", "many") if found.get(kind) in names}


def _checksum(run: Run) -> str | None:
    """Return the checksum of the ONNX file, so that a damaged one is written again."""
    try:
        return hashlib.sha256((run.path / NETWORK).read_bytes()).hexdigest()
    except OSError:
        return None


def _measured(run: Run, installed: list[str], batch_size: int) -> dict[str, float]:
    """Return the seconds of PyTorch and of each engine that agrees with it."""
    if installed and find_spec("onnx"):
        with suppress(PeewitError):  # a network without an ONNX form, or a read-only folder
            write_network(run, run.path / NETWORK)
    rule = run.preprocessing
    random = np.random.default_rng(0)
    pixels = rule.height * rule.width
    count = min(batch_size, max(PIECE, PIXELS // pixels), BATCH)
    images = random.integers(0, 256, (count, rule.height, rule.width, rule.channels), np.uint8)
    wanted = run.logits(images)
    good: dict[str, Engine] = {"PyTorch": Torch(run)}
    if batch_size > 1 and usable_cores() > 1:
        good[PARALLEL] = Torch(run, usable_cores())
    for name in installed:
        with suppress(PeewitError):  # a file with other weights does not agree
            engine = runtime(name, run, many=batch_size > 1)
            if np.abs(engine.logits(images) - wanted).max() <= TOLERANCE:
                good[name] = engine
    # interleaved, so that a moment of background load does not decide
    best = dict.fromkeys(good, math.inf)
    for _ in range(TURNS):
        for name, candidate in good.items():
            best[name] = min(best[name], _seconds(partial(candidate.logits, images)))
        good = {name: good[name] for name in good if best[name] <= HOPELESS * min(best.values())}
    return best


def _seconds(work: Callable[[], object], budget: float = 0.05) -> float:
    """Return the shortest time of ``work`` within a budget of seconds."""
    best, end = float("inf"), time.perf_counter() + budget
    while True:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() >= end:
            return best
