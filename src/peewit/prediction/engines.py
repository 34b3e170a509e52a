"""What computes a Run's answers: PyTorch, or a faster runtime where one is installed.

The network is kept beside the weights as an ONNX file, written when PyTorch is at hand anyhow, so
that a later prediction need not wait for PyTorch to be imported. Which engine is fastest is
measured once and kept as well. An engine that does not give PyTorch's answers is not taken.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from threading import Barrier
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.inference import BATCH, mixed_views, softmax
from peewit.prediction.runtimes import LOADERS, PACKAGES, Floats, Forward, write_network
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.cpu import processor_name, usable_cores
from peewit.system.files import write_text

Images = npt.NDArray[np.uint8]
Pictures = npt.NDArray[Any]  # uint8, as they come; or float32, as an engine has prepared them

NETWORK, CHOICE = "engine.onnx", "engine.json"
PARALLEL = "PyTorch, a thread a batch"
FORMAT = 1
# Logits of different runtimes differ by 1e-5 at most; more than this is another network
TOLERANCE = 1e-3
# how often each engine is measured
TURNS = 3
# Pictures that one of several threads takes at a time: enough that the hand-over costs nothing, few
# enough that a thread which others keep from working does not keep the rest waiting
PIECE = 16
# Fewer pictures for each thread than this PyTorch answers sooner with all threads at one batch: on
# two cores 4 of fast-s, in six views, in 6.7 instead of 9.5 ms, and 8 in 15.1 instead of 13.7
FEW = 4


class Engine(Protocol):
    """Something that gives a Run's answers."""

    name: str
    class_names: tuple[str, ...]
    streams: int  # how many threads at a time may ask it, each with a part, for the most a second
    piece: int  # of how many pictures those parts should be

    def prepare(self, image: Images) -> Pictures:
        """Make a picture small as soon as it is read, so that many can be kept.

        Returns
        -------
        array, shape (height, width, C)
            The uint8 ``image`` (H, W, C) itself where it is what the network reads; else float32,
            resized and in the network's scale.
        """

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of images (N, H, W, C): float32 (N, classes).

        They are uint8, of any size; or float32, as ``prepare`` gives them.
        """

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability, float32 (N, classes)."""


class _OfRun(ABC):
    """What the engines have in common."""

    piece = PIECE  # the most pictures that one of several threads takes

    def __init__(self, run: Run, streams: int = 1, initializer: Callable[[], None] | None = None):
        self.run, self.streams = run, streams
        self.class_names = run.class_names
        self._pool = (
            ThreadPoolExecutor(streams, "peewit-network", initializer) if streams > 1 else None
        )

    def prepare(self, image: Images) -> Pictures:
        """Make ``image`` what the network reads."""
        rule = self.run.preprocessing
        fits = image.shape == (rule.height, rule.width, rule.channels)
        # not by PyTorch, where that is the engine: one picture at a time it takes twice as long
        return image if fits else rule.array(image[None])[0]

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability."""
        return softmax(self.logits(images, batch_size))

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        if not len(images):
            return np.empty((0, len(self.class_names)), np.float32)
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
    """PyTorch, which trained it: the answers that all others must agree with.

    Parameters
    ----------
    run : Run
    streams : int
        How many batches are computed at a time. Of several each has one thread; a single one has
        all of PyTorch's.
    """

    name = "PyTorch"
    piece = BATCH

    def __init__(self, run: Run, streams: int = 1) -> None:
        import torch

        def alone() -> None:
            # asked first, because the first question in a thread gives it as many as all have
            torch.get_num_threads()
            torch.set_num_threads(1)

        super().__init__(run, streams, alone)
        if self._pool is not None:
            before, all_there = torch.get_num_threads(), Barrier(streams)
            list(self._pool.map(lambda _: all_there.wait(), range(streams)))
            # the last one to set it has set it for all threads to come as well
            torch.set_num_threads(before)

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        few = 0 < len(images) < FEW * self.streams
        return self._piece(images) if few else super().logits(images, batch_size)

    def _piece(self, images: Pictures) -> Floats:
        as_they_come = images.dtype == np.uint8
        answers = self.run.logits if as_they_come else self.run.logits_of_prepared
        return answers(images, len(images))


class Runtime(_OfRun):
    """A runtime that computes the network from the ONNX file; PyTorch is not imported.

    Parameters
    ----------
    name : str
    run : Run
    forward : function
        From prepared pictures, float32 (N, H, W, C), to logits, (N, classes).
    streams : int
        In how many threads at a time ``forward`` is called.
    """

    def __init__(self, name: str, run: Run, forward: Forward, streams: int = 1) -> None:
        super().__init__(run, streams)
        self.name, self.forward = name, forward

    def _piece(self, images: Pictures) -> Floats:
        x = self.run.preprocessing.array(images) if images.dtype == np.uint8 else images
        logits = self.forward(x)
        if not self.run.unsure_below:
            return logits
        unsure = np.flatnonzero(softmax(logits).max(axis=1) < self.run.unsure_below)
        if len(unsure):
            mirror = self.run.recipe.flip != "none"
            logits[unsure] = mixed_views(self.forward, x[unsure], logits[unsure], mirror=mirror)
        return logits


def fastest(run: Run, batch_size: int = BATCH) -> Engine:
    """Return the engine that gives ``run``'s answers soonest, ``batch_size`` pictures at a time.

    Parameters
    ----------
    run : Run
        With weights.
    batch_size : int
        How many pictures come at a time: 1 asks for the shortest wait, more for the most a second.

    Returns
    -------
    Engine
        Measured once, if that can be kept in the run's folder.
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
            # a single answer mostly comes in a new process, where the import of PyTorch takes
            # longer than a thousand pictures
            del measured["PyTorch"]
        known = known | {kind: min(measured, key=lambda name: measured[name])}
        with suppress(PeewitError):  # a read-only folder: measured again next time
            text = json.dumps({"format": FORMAT, "measured": stamp, **known})
            write_text(run.path / CHOICE, text + "\n")
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
        Whether to answer the most pictures a second, rather than each as soon as can be.

    Raises
    ------
    PeewitError
        The file cannot be read, or the runtime does not load.
    """
    try:
        content = (run.path / NETWORK).read_bytes()
        engine = Runtime(name, run, *LOADERS[name](content, many))
        # in this thread alone: two threads whose call is OpenVINO's first in a process may wait
        # for each other for ever, one with Python's lock and one with that of OpenVINO's module
        rule = run.preprocessing
        engine.forward(np.zeros((1, rule.height, rule.width, rule.channels), np.float32))
        return engine
    except (ImportError, AttributeError) as error:  # installed, but it does not load here
        raise PeewitError(f"cannot use {name}", str(error), "install it anew") from error
    except (OSError, RuntimeError, ValueError) as error:  # the runtimes' own are RuntimeErrors
        raise PeewitError(f"cannot use {run.path / NETWORK}", str(error)) from error


def _stamp(run: Run, installed: list[str]) -> str | None:
    """Return what a choice holds for: these weights (by size and time), machine and runtimes."""
    try:
        facts = (run.path / runfolder.WEIGHTS).stat()
    except OSError:
        return None
    weights = f"weights {facts.st_size}-{facts.st_mtime_ns}"
    return f"{weights}, {processor_name()}, {usable_cores()} cores, {', '.join(installed)}"


def _known(run: Run, stamp: str) -> dict[str, Any]:
    """Return which engine was fastest, if that was measured for the same."""
    try:
        found = json.loads((run.path / CHOICE).read_text(encoding="utf-8"))
        good = found["format"] == FORMAT and found["measured"] == stamp
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not good:
        return {}
    names = {"PyTorch", PARALLEL, *(PACKAGES if (run.path / NETWORK).is_file() else ())}
    return {kind: found[kind] for kind in ("one", "many") if found.get(kind) in names}


def _measured(run: Run, installed: list[str], batch_size: int) -> dict[str, float]:
    """Return the seconds of PyTorch, and of each engine that agrees with it."""
    if installed and find_spec("onnx"):
        with suppress(PeewitError):  # a network that has no ONNX form, or a read-only folder
            write_network(run, run.path / NETWORK)
    rule = run.preprocessing
    random = np.random.default_rng(0)
    shape = (min(batch_size, BATCH), rule.height, rule.width, rule.channels)
    images = random.integers(0, 256, shape, np.uint8)
    wanted = run.logits(images)
    good: dict[str, Engine] = {"PyTorch": Torch(run)}
    if batch_size > 1 and usable_cores() > 1:
        good[PARALLEL] = Torch(run, usable_cores())
    for name in installed:
        with suppress(PeewitError):  # a file of other weights does not agree
            engine = runtime(name, run, many=batch_size > 1)
            if np.abs(engine.logits(images) - wanted).max() <= TOLERANCE:
                good[name] = engine
    # in turns, so that a moment in which the machine was busy does not decide
    turns = [
        {name: _seconds(partial(engine.logits, images)) for name, engine in good.items()}
        for _ in range(TURNS)
    ]
    return {name: min(turn[name] for turn in turns) for name in good}


def _seconds(work: Callable[[], object], budget: float = 0.05) -> float:
    """Return the shortest time of ``work`` within a budget of seconds."""
    work()  # the first call makes room for itself
    best, end = float("inf"), time.perf_counter() + budget
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return best
