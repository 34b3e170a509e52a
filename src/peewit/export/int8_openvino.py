"""8-bit OpenVINO files, by NNCF's post-training quantisation."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewit.export import openvino
from peewit.export.int8_onnx import network_input
from peewit.system.openvino_runtime import preserved_signal_stack
from peewit.system.packages import import_required

if TYPE_CHECKING:
    from peewit.export.agreement import Images
    from peewit.export.job import Content

PURPOSE = "export to OpenVINO in 8 bits"
EXTRA = "openvino-int8"


def quantize(content: Content, batches: Sequence[Images]) -> Any:
    """Return the ``openvino.Model`` in 8 bits; the preprocessing stays in float."""
    for package in ("onnx", "openvino"):
        import_required(package, EXTRA, PURPOSE)
    nncf = import_required("nncf", EXTRA, PURPOSE)
    nncf.set_log_level(logging.ERROR)
    model = openvino.model(content)
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    # NNCF prints its progress bars to stdout
    with preserved_signal_stack(), redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: network_input(content, batch)),
            subset_size=len(batches),
            # asymmetric activations: half as many pictures of the tutorial's network change their
            # class as with symmetric ones, and 0.7 times as many of the fast networks
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_ancestors(first), validate=False),
        )


def save(model: Any, content: Content, stem: Path) -> list[Path]:
    """Write ``stem.xml`` and ``stem.bin`` with the metadata."""
    return openvino.save(model, content, stem)


def _ancestors(operation: Any) -> list[str]:
    """Return the names of all nodes that an OpenVINO node depends on, except constants."""
    names: set[str] = set()
    pending = [operation.input_value(0).get_node()]
    while pending:
        node = pending.pop()
        name = node.get_friendly_name()
        if name not in names and node.get_type_name() not in ("Constant", "Parameter"):
            names.add(name)
            pending += [value.get_node() for value in node.input_values()]
    return sorted(names)
