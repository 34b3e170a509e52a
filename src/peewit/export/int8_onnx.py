"""8-bit ONNX files, by ONNX Runtime's static quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.export import onnx
from peewit.system.packages import import_required

if TYPE_CHECKING:
    from peewit.export.agreement import Images
    from peewit.export.job import Content

PURPOSE = "export to ONNX in 8 bits"


def quantize(content: Content, batches: Sequence[Images]) -> Any:
    """Return the ``onnx.ModelProto`` in 8 bits.

    Only convolutions, ReLUs and dense layers are quantised, for which ONNX Runtime has 8-bit CPU
    kernels. The operations between them and the preprocessing stay in float.
    """
    library = import_required("onnx", "onnx", PURPOSE)
    import_required("onnxruntime", "onnx", PURPOSE)
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.RAW_INPUT if content.raw else onnx.INPUT

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Supplies the calibration images batch by batch."""

        def __init__(self) -> None:
            self.remaining: Iterator[Images] = iter(batches)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            """Return the next batch by input name, or None at the end."""
            batch = next(self.remaining, None)
            return None if batch is None else {name: network_input(content, batch)}

    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        # folds batch normalisation into the convolution before it; skipping symbolic shape
        # inference avoids a dependency on sympy
        (original,) = onnx.write(content, Path(folder) / "original")
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            # ReLUs are fused into the convolutions: 1.15 times as fast as without them
            op_types_to_quantize=["Conv", "Relu", "Gemm"],
            # one scale for all channels costs the fast networks 2.4 points, one per channel nothing
            per_channel=True,
            # 7-bit weights: with 8 bits, sums overflow on CPUs without VNNI; costs no accuracy
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return library.load(quantized)


def save(model: Any, content: Content, stem: Path) -> list[Path]:
    """Write ``stem.onnx`` with the metadata."""
    library = import_required("onnx", "onnx", PURPOSE)
    library.helper.set_model_props(model, content.metadata)
    file = stem.with_name(stem.name + onnx.SUFFIXES[0])
    file.write_bytes(model.SerializeToString())
    return [file]


def network_input(content: Content, batch: Images) -> npt.NDArray[Any]:
    """Return the input of the file for images (N, H, W, C).

    The images themselves, or, for raw files, the prepared images, (N, C, H, W) float32.
    """
    if not content.raw:
        return np.ascontiguousarray(batch)
    return np.ascontiguousarray(content.preprocessing.array(batch).transpose(0, 3, 1, 2))
