"""OpenVINO's own format: ``.xml`` for the network, ``.bin`` for the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.export import onnx
from peewit.export.agreement import Answers
from peewit.export.compiled import compiled
from peewit.export.missing import needed

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".xml", ".bin")
# what OpenVINO must be told to answer as the run does (measured: the tutorial's network takes 34
# of 10,000 test pictures for another class in bfloat16)
NOTE = (
    'OpenVINO by itself computes in bfloat16 where the processor can: compile_model(file, "CPU", '
    '{"INFERENCE_PRECISION_HINT": "f32"}) gives the run\'s own answers'
)


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.xml`` and ``stem.bin``."""
    return save(model(content), content, stem)


def model(content: Content) -> Any:
    """Return the ``openvino.Model``."""
    openvino = needed("openvino", "openvino", "export to OpenVINO")
    return openvino.Core().read_model(onnx.model(content).SerializeToString())


def save(found: Any, content: Content, stem: Path) -> list[Path]:
    """Write an ``openvino.Model`` with the metadata."""
    openvino = needed("openvino", "openvino", "export to OpenVINO")
    for name, value in content.metadata.items():
        found.set_rt_info(value, ["peewit", name])
    file = stem.with_name(stem.name + SUFFIXES[0])
    # weights as they are: half precision would change the answers
    openvino.save_model(found, file, compress_to_fp16=False)
    return [file]


def answers(content: Content, file: Path) -> Answers:
    """Load the files in OpenVINO."""
    needed("openvino", "openvino", "checking an OpenVINO file")
    network = compiled(file)

    def forward(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        given = pictures.transpose(0, 3, 1, 2) if content.raw else pictures
        result: npt.NDArray[np.float32] = network(np.ascontiguousarray(given))[0]
        return result.copy()  # OpenVINO uses its memory again

    return content.answers(forward)
