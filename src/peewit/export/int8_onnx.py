"""ONNX in 8 bits, by ONNX Runtime's static quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.export import graph, onnx
from peewit.export.missing import needed

if TYPE_CHECKING:
    from peewit.export.agreement import Pictures
    from peewit.export.job import Content

WHAT = "an 8-bit ONNX file"


def quantised(content: Content, batches: Sequence[Pictures]) -> Any:
    """Return the ``onnx.ModelProto`` in 8 bits.

    Only what it has kernels of 8 bits for on processors: convolutions, ReLUs and dense layers. What
    is between them stays in float, as does what prepares the pictures.
    """
    library = needed("onnx", "onnx", WHAT)
    needed("onnxruntime", "onnx", WHAT)
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = graph.RAW_INPUT if content.raw else graph.INPUT

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the pictures, batch by batch."""

        def __init__(self) -> None:
            self.rest: Iterator[Pictures] = iter(batches)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            """Return the next batch by the input's name; None at the end."""
            batch = next(self.rest, None)
            return None if batch is None else {name: fed(content, batch)}

    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        prepared, small = Path(folder) / "prepared.onnx", Path(folder) / "small.onnx"
        # a normalisation right after a convolution becomes part of it; the shapes need no sympy
        (whole,) = onnx.write(content, Path(folder) / "whole")
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            small,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            # with the ReLUs, which go into the convolutions: 1.15 times as fast as without
            op_types_to_quantize=["Conv", "Relu", "Gemm"],
            # one scale for all channels costs the fast networks 2.4 points, one for each nothing
            per_channel=True,
            # weights of 7 bits: sums of 8 overflow on processors without VNNI; it costs nothing
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return library.load(small)


def save(model: Any, content: Content, stem: Path) -> list[Path]:
    """Write ``stem.onnx`` with the metadata."""
    library = needed("onnx", "onnx", WHAT)
    library.helper.set_model_props(model, content.metadata)
    file = stem.with_name(stem.name + onnx.SUFFIXES[0])
    file.write_bytes(model.SerializeToString())
    return [file]


def fed(content: Content, batch: Pictures) -> npt.NDArray[Any]:
    """Return what the file's input is given for pictures (N, H, W, C).

    The pictures themselves; of a raw file what they are prepared to, (N, C, H, W) float32.
    """
    if not content.raw:
        return np.ascontiguousarray(batch)
    return np.ascontiguousarray(content.preprocessing.array(batch).transpose(0, 3, 1, 2))
