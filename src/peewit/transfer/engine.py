"""Compute the features of pictures with the fastest engine that is installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from peewit import __version__, kernels
from peewit.export import onnx
from peewit.export.operations import Dense, operations_of
from peewit.images.preprocessing import Preprocessing
from peewit.models.efficientnet_lite import FEATURES, EfficientNetLite
from peewit.models.registry import build, find
from peewit.system.cpu import usable_cores
from peewit.system.openvino_runtime import compile_network

Floats = npt.NDArray[np.float32]
# Pictures at a time: on two cores 16, 32 and 64 are equally fast
BATCH = 16
TURNS = 3


Engine = Callable[[npt.NDArray[np.uint8]], Floats]
"""Returns the features of pictures of any size: (n, H, W, C) -> float32 (n, 1280)."""


def engine_name() -> str:
    """Return the name and version of the fastest installed engine.

    On two cores with AVX-512 the kernels compute the features of 226 pictures per second, OpenVINO
    of 176, and PyTorch without kernels of 31. Features of different engines differ by 1e-6 of the
    largest.
    """
    if kernels.available():
        return f"kernels-{__version__}"
    package = "openvino" if find_spec("openvino") and find_spec("onnx") else "torch"
    return f"{package}-{version(package)}"


def fastest(network: EfficientNetLite, rule: Preprocessing) -> Engine:
    """Return the engine of ``engine_name``.

    Parameters
    ----------
    network : EfficientNetLite
        Its last layer is not used.
    rule : Preprocessing
        Of the network's input.
    """
    make = _openvino if engine_name().startswith("openvino") else _torch
    return make(network, rule)


def measured_speed(name: str, size: int) -> float:
    """Return how many pictures per second the fastest engine computes the features of.

    Parameters
    ----------
    name : str
        Of the network, which has random weights here.
    size : int
        Height and width of the pictures.
    """
    (mean, scale), shape = find(name).normalisation or (0.0, 1.0), (size, size, 3)
    rule = Preprocessing(size, size, 3, (mean,) * 3, (scale,) * 3)
    network = build(name, shape, 2, 0).eval()
    assert isinstance(network, EfficientNetLite)
    engine, pictures = fastest(network, rule), np.zeros((BATCH, *shape), np.uint8)
    engine(pictures)  # compiles
    seconds = []
    for _ in range(TURNS):
        began = time.perf_counter()
        engine(pictures)
        seconds.append(time.perf_counter() - began)
    return BATCH / median(seconds)


def _torch(network: EfficientNetLite, rule: Preprocessing) -> Engine:
    def features(pictures: npt.NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            found: Floats = network.features(rule.tensor(pictures)).numpy()
        return found

    return features


def _openvino(network: EfficientNetLite, rule: Preprocessing) -> Engine:
    graph = onnx.Graph()
    x = graph.add("Transpose", "prepared", perm=[0, 3, 1, 2])
    operations = [one for one in operations_of(network) if not isinstance(one, Dense)]
    out = graph.add("Identity", onnx.add_network(graph, x, operations, rule), output="features")
    model = graph.model(
        ("prepared", np.float32, ["N", rule.height, rule.width, rule.channels]),
        (out, ["N", FEATURES]),
        {},
    )
    compiled = compile_network(model.SerializeToString(), INFERENCE_NUM_THREADS=str(usable_cores()))

    def features(pictures: npt.NDArray[np.uint8]) -> Floats:
        x = rule.tensor(pictures).permute(0, 2, 3, 1).numpy()  # as it is in memory
        found: Floats = compiled(x)[0]
        return found.copy()  # OpenVINO reuses its output buffer

    return features
