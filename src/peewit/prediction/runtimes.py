"""Run a network in ONNX Runtime or OpenVINO, from an ONNX file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.system.cpu import own_cores, usable_cores
from peewit.system.files import replacing
from peewit.system.openvino_runtime import compile_network
from peewit.system.packages import import_quietly

if TYPE_CHECKING:
    from peewit.runs.run import Run

Floats = npt.NDArray[np.float32]
Forward = Callable[[Floats], Floats]  # preprocessed pictures (N, H, W, C) -> logits (N, classes)

PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def write_network(run: Run, file: Path) -> None:
    """Write a run's network as an ONNX file, from preprocessed pictures to logits.

    Raises
    ------
    PeewitError
        The network cannot be expressed in ONNX, or the file cannot be written.
    """
    from peewit.export import job, onnx

    content = onnx.model(job.contents(run, raw=True)).SerializeToString()
    with replacing(file) as partial:
        partial.write_bytes(content)


def _onnxruntime(content: bytes, many: bool) -> tuple[Forward, int]:
    """Load a network into ONNX Runtime; see ``LOADERS``."""
    onnxruntime = import_quietly("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if many:
        options.intra_op_num_threads = 1
    elif usable_cores() < own_cores():  # by default it uses all cores, whatever the quota
        options.intra_op_num_threads = usable_cores()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise RuntimeError(str(error)) from error

    def forward(x: Floats) -> Floats:
        logits: Floats = session.run(None, {"input": _channels_first(x)})[0]
        return logits

    return forward, usable_cores() if many else 1


def _openvino(content: bytes, many: bool) -> tuple[Forward, int]:
    """Load a network into OpenVINO; see ``LOADERS``."""
    network = compile_network(content, PERFORMANCE_HINT="THROUGHPUT" if many else "LATENCY")
    own = threading.local()

    def forward(x: Floats) -> Floats:
        if not hasattr(own, "request"):
            own.request = network.create_infer_request()
        logits: Floats = own.request.infer({0: _channels_first(x)}, share_inputs=True)[0]
        return logits.copy()  # OpenVINO reuses its memory for the next request

    return forward, network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if many else 1


# Each loader takes the content of an ONNX file, and whether throughput for many pictures matters
# more than latency for few. It returns a thread-safe function that computes the network, and the
# number of threads that should call it at a time. For few pictures that is one thread, and the
# runtime uses all cores for it. For many it is several, with one core each, which need not
# synchronise after every layer: that saves an eighth of the time on two cores.
LOADERS: dict[str, Callable[[bytes, bool], tuple[Forward, int]]] = {
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
}


def _channels_first(x: Floats) -> Floats:
    """Return an array (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
