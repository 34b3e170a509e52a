"""OpenVINO's own format: ``.xml`` for the network, ``.bin`` for the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.export import onnx
from peewit.export.agreement import Predictor
from peewit.system.openvino_runtime import compile_network
from peewit.system.packages import import_required

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".xml", ".bin")
# measured: in bfloat16 the tutorial's network predicts another class for 34 of 10,000 test images
NOTE = (
    "OpenVINO computes in bfloat16 by default where the processor supports it; to get the run's "
    'predictions, use compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})'
)


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.xml`` and ``stem.bin``."""
    return save(model(content), content, stem)


def model(content: Content) -> Any:
    """Return the ``openvino.Model``."""
    openvino = import_required("openvino", "openvino", "export to OpenVINO")
    return openvino.Core().read_model(onnx.model(content).SerializeToString())


def save(network: Any, content: Content, stem: Path) -> list[Path]:
    """Write an ``openvino.Model`` with the metadata."""
    openvino = import_required("openvino", "openvino", "export to OpenVINO")
    for name, value in content.metadata.items():
        network.set_rt_info(value, ["peewit", name])
    file = stem.with_name(stem.name + SUFFIXES[0])
    # float16 weights, OpenVINO's default, would change the predictions
    openvino.save_model(network, file, compress_to_fp16=False)
    return [file]


def load(content: Content, file: Path) -> Predictor:
    """Load the files in OpenVINO."""
    import_required("openvino", "openvino", "checking an OpenVINO file")
    network = compile_network(file)

    def forward(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        x = images.transpose(0, 3, 1, 2) if content.raw else images
        result: npt.NDArray[np.float32] = network(np.ascontiguousarray(x))[0]
        return result.copy()  # OpenVINO reuses its output buffer

    return content.predictor(forward)
