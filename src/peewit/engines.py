"""What computes a Run's answers: PyTorch, or a faster runtime where one is installed.

The network is kept beside the weights as an ONNX file, written when PyTorch is at hand anyhow, so
that a later prediction need not wait for PyTorch to be imported. Which engine is fastest is
measured once and kept as well. An engine that does not give PyTorch's answers is not taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit import runfolder
from peewit.errors import PeewitError
from peewit.export.quiet import quiet
from peewit.files import replacing, write_text
from peewit.inference import BATCH, mixed_views, softmax
from peewit.preprocessing import Preprocessing
from peewit.run import Run

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Pictures = npt.NDArray[Any]  # uint8, as they come; or float32, as an engine has prepared them
Forward = Callable[[Floats], Floats]  # prepared pictures (N, H, W, C) -> logits (N, classes)

NETWORK, CHOICE = "engine.onnx", "engine.json"
FORMAT = 1
# Logits of different runtimes differ by 1e-5 at most; more than this is another network
TOLERANCE = 1e-3
PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


class Engine(Protocol):
    """Something that gives a Run's answers."""

    name: str
    class_names: tuple[str, ...]

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


class Torch:
    """PyTorch, which trained it: the answers that all others must agree with."""

    name = "PyTorch"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.class_names = run.class_names
        # answers like the run itself, second looks included
        self._prepared = replace(run, preprocessing=AsTheyAre(**asdict(run.preprocessing)))

    def prepare(self, image: Images) -> Pictures:
        """Make ``image`` what the network reads."""
        rule = self.run.preprocessing
        if image.shape == (rule.height, rule.width, rule.channels):
            return image
        # (1, C, H, W) -> (H, W, C), the same memory
        small: Floats = rule.tensor(image[None])[0].permute(1, 2, 0).numpy()
        return small

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        run = self.run if images.dtype == np.uint8 else self._prepared
        return run.logits(images, batch_size)

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability."""
        return softmax(self.logits(images, batch_size))


class Runtime:
    """A runtime that computes the network from the ONNX file; PyTorch is not imported."""

    def __init__(self, name: str, run: Run, forward: Forward) -> None:
        self.name, self.run, self.forward = name, run, forward
        self.class_names = run.class_names

    def prepare(self, image: Images) -> Pictures:
        """Make ``image`` what the network reads."""
        rule = self.run.preprocessing
        if image.shape == (rule.height, rule.width, rule.channels):
            return image
        small: Floats = rule.array(image[None])[0]
        return small

    def logits(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return the logits of ``images``."""
        rule, found = self.run.preprocessing, [np.empty((0, len(self.class_names)), np.float32)]
        for first in range(0, len(images), batch_size):
            part = images[first : first + batch_size]
            x = rule.array(part) if part.dtype == np.uint8 else part
            logits = self.forward(x)
            unsure = np.flatnonzero(softmax(logits).max(axis=1) < self.run.unsure_below)
            if len(unsure):
                mirror = self.run.recipe.flip != "none"
                logits[unsure] = mixed_views(self.forward, x[unsure], logits[unsure], mirror=mirror)
            found.append(logits)
        return np.concatenate(found)

    def probabilities(self, images: Pictures, batch_size: int = BATCH) -> Floats:
        """Return each class's probability."""
        return softmax(self.logits(images, batch_size))


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
    stamp = _stamp(run)
    if not installed or stamp is None:
        return Torch(run)
    known = _known(run, stamp)
    kind = "one" if batch_size == 1 else "many"
    if kind not in known:
        measured = _measured(run, installed, stamp, batch_size)
        if not measured:
            return Torch(run)
        if kind == "one" and len(measured) > 1:
            # a single answer mostly comes in a new process, where the import of PyTorch takes
            # longer than a thousand pictures
            del measured["PyTorch"]
        known = known | {kind: min(measured, key=lambda name: measured[name])}
        with suppress(PeewitError):  # a read-only folder: measured again next time
            text = json.dumps({"format": FORMAT, "weights": stamp, **known})
            write_text(run.path / CHOICE, text + "\n")
    name = known[kind]
    if name in installed:
        with suppress(PeewitError):
            return runtime(name, run)
    return Torch(run)


def runtime(name: str, run: Run) -> Runtime:
    """Return the engine ``name`` over the ONNX file in the run's folder.

    Raises
    ------
    PeewitError
        The file cannot be read.
    """
    try:
        content = (run.path / NETWORK).read_bytes()
        return Runtime(name, run, LOADERS[name](content))
    except (OSError, RuntimeError, ValueError) as error:  # the runtimes' own are RuntimeErrors
        raise PeewitError(f"cannot use {run.path / NETWORK}", str(error)) from error


def _onnxruntime(content: bytes) -> Forward:
    onnxruntime = quiet("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        raise RuntimeError(str(error)) from error

    def forward(x: Floats) -> Floats:
        # (N, H, W, C) -> (N, C, H, W)
        given = {"input": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}
        logits: Floats = session.run(None, given)[0]
        return logits

    return forward


def _openvino(content: bytes) -> Forward:
    core = quiet("openvino").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(content), "CPU", settings)

    def forward(x: Floats) -> Floats:
        logits: Floats = compiled(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))[0]
        return logits.copy()  # OpenVINO uses its memory again

    return forward


LOADERS: dict[str, Callable[[bytes], Forward]] = {
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
}


def _stamp(run: Run) -> str | None:
    """Return what changes with the weights, without reading them all: size and time."""
    try:
        facts = (run.path / runfolder.WEIGHTS).stat()
    except OSError:
        return None
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _known(run: Run, stamp: str) -> dict[str, Any]:
    """Return which engine was fastest, if that was measured for these weights."""
    try:
        found = json.loads((run.path / CHOICE).read_text(encoding="utf-8"))
        good = found["format"] == FORMAT and found["weights"] == stamp
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not good or not (run.path / NETWORK).is_file():
        return {}
    names = {"PyTorch", *PACKAGES}
    return {kind: found[kind] for kind in ("one", "many") if found.get(kind) in names}


def _measured(run: Run, installed: list[str], stamp: str, batch_size: int) -> dict[str, float]:
    """Return the seconds of each engine that agrees with PyTorch; nothing if none can be made."""
    if not find_spec("onnx"):
        return {}
    try:
        _write_network(run)
    except PeewitError:  # a network that has no ONNX form, or a folder that is read-only
        return {}
    rule = run.preprocessing
    random = np.random.default_rng(0)
    shape = (min(batch_size, BATCH), rule.height, rule.width, rule.channels)
    images = random.integers(0, 256, shape, np.uint8)
    wanted = run.logits(images)
    seconds = {"PyTorch": _seconds(lambda: run.logits(images))}
    for name in installed:
        try:
            engine = runtime(name, run)
        except PeewitError:
            continue
        if np.abs(engine.logits(images) - wanted).max() <= TOLERANCE:
            seconds[name] = _seconds(lambda engine=engine: engine.logits(images))  # type: ignore[misc]
    return seconds


def _seconds(work: Callable[[], object], budget: float = 0.15) -> float:
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
