"""ONNX: one file that ONNX Runtime, OpenVINO, TensorRT and others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.export import graph
from peewit.export.agreement import Answers
from peewit.export.missing import needed

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".onnx",)
NOTE = ""


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.onnx``."""
    file = stem.with_name(stem.name + SUFFIXES[0])
    file.write_bytes(model(content).SerializeToString())
    return [file]


def model(content: Content) -> Any:
    """Return the ``onnx.ModelProto``."""
    needed("onnx", "onnx", "export to ONNX")
    make = graph.raw_model if content.raw else graph.whole_model
    return make(content.operations, content.preprocessing, content.metadata)


def answers(content: Content, file: Path) -> Answers:
    """Load the file in ONNX Runtime."""
    runtime = needed("onnxruntime", "onnx", "checking an ONNX file")
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])

    def forward(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if content.raw:
            given = {graph.RAW_INPUT: np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))}
        else:
            given = {graph.INPUT: pictures}
        result: npt.NDArray[np.float32] = session.run(None, given)[0]
        return result

    return content.answers(forward)
