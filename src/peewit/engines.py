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
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit import runfolder
from peewit.errors import PeewitError
from peewit.files import replacing, write_text
from peewit.inference import BATCH, mixed_views, softmax
from peewit.preprocessing import Preprocessing
from peewit.processor import processor_name, usable_cores
from peewit.run import Run
from peewit.runtimes import LOADERS, PACKAGES, Floats, Forward

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Pictures = npt.NDArray[Any]  # uint8, as they come; or float32, as an engine has prepared them

NETWORK, CHOICE = "engine.onnx", "engine.json"
FORMAT = 1
# Logits of different runtimes differ by 1e-5 at most; more than this is another network
TOLERANCE = 1e-3
# how often each engine is measured
TURNS = 3
# Pictures that one of several threads takes at a time: enough that the hand-over costs nothing, few
# enough that a thread which others keep from working does not keep the rest waiting
PIECE = 16


class Engine(Protocol):
    """Something that gives a Run's answers."""

    name: str
    class_names: tuple[str, ...]
    streams: int  # how many threads at a time may ask it, each with a part, for the most a second

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


class AsTheyAre(Preprocessing):
    """For pictures that have been prepared already."""

    def tensor(self, images: npt.NDArray[Any]) -> torch.Tensor:
        """Return ``images``, float32 (N, H, W, C), as (N, C, H, W): the same memory."""
        import torch

        return torch.from_numpy(images).permute(0, 3, 1, 2)


class _OfRun(ABC):
    """What the engines have in common."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.class_names = run.class_names

    def prepare(self, image: Images) -> Pictures:
        """Make ``image`` what the network reads."""
        rule = self.run.preprocessing
        fits = image.shape == (rule.height, rule.width, rule.channels)
        # not by PyTorch, where that is the engine: one picture at a time it takes twice as long
        return image if fits else rule.array(image[None])[0]

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability."""
        return softmax(self.logits(images, batch_size))

    @abstractmethod
    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""


class Torch(_OfRun):
    """PyTorch, which trained it: the answers that all others must agree with."""

    name = "PyTorch"
    streams = 1  # it uses all cores for each batch

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        # answers like the run itself, second looks included
        self._prepared = replace(run, preprocessing=AsTheyAre(**asdict(run.preprocessing)))

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        run = self.run if images.dtype == np.uint8 else self._prepared
        return run.logits(images, batch_size)


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
        super().__init__(run)
        self.name, self.forward, self.streams = name, forward, streams
        self._pool = ThreadPoolExecutor(streams, "peewit-network") if streams > 1 else None

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        if not len(images):
            return np.empty((0, len(self.class_names)), np.float32)
        size = min(batch_size, PIECE, -(-len(images) // self.streams)) if self._pool else batch_size
        parts = [images[first : first + size] for first in range(0, len(images), size)]
        if len(parts) == 1:
            return self._piece(images)
        if self._pool is None:
            return np.concatenate([self._piece(part) for part in parts])
        return np.concatenate(list(self._pool.map(self._piece, parts)))

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
        PyTorch where nothing else is installed, or nothing can be kept in the run's folder.
    """
    installed = [name for name, package in PACKAGES.items() if find_spec(package)]
    stamp = _stamp(run, installed)
    if not installed or stamp is None:
        return Torch(run)
    known = _known(run, stamp)
    kind = "one" if batch_size == 1 else "many"
    if kind not in known:
        measured = _measured(run, installed, batch_size)
        if not measured:
            return Torch(run)
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
    return Torch(run)


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
    if not good or not (run.path / NETWORK).is_file():
        return {}
    names = {"PyTorch", *PACKAGES}
    return {kind: found[kind] for kind in ("one", "many") if found.get(kind) in names}


def _measured(run: Run, installed: list[str], batch_size: int) -> dict[str, float]:
    """Return the seconds of each engine that agrees with PyTorch; nothing if none can be made."""
    if find_spec("onnx"):
        with suppress(PeewitError):  # a network that has no ONNX form, or a read-only folder
            _write_network(run)
    if not (run.path / NETWORK).is_file():  # one of other weights does not agree
        return {}
    rule = run.preprocessing
    random = np.random.default_rng(0)
    shape = (min(batch_size, BATCH), rule.height, rule.width, rule.channels)
    images = random.integers(0, 256, shape, np.uint8)
    wanted = run.logits(images)
    good: dict[str, Engine] = {"PyTorch": Torch(run)}
    for name in installed:
        with suppress(PeewitError):
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


def _write_network(run: Run) -> Path:
    from peewit.export import job, onnx

    file = run.path / NETWORK
    content = onnx.model(job.contents(run, raw=True)).SerializeToString()
    with replacing(file) as partial:
        partial.write_bytes(content)
    return file
