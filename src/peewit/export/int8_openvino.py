"""OpenVINO in 8 bits, by NNCF's post-training quantisation."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peewit.export import openvino
from peewit.export.compiled import kept_signal_stack
from peewit.export.int8_onnx import fed
from peewit.export.missing import needed

if TYPE_CHECKING:
    from peewit.export.agreement import Pictures
    from peewit.export.job import Content

WHAT = "an 8-bit file for OpenVINO"
EXTRA = "openvino-int8"


def quantised(content: Content, batches: Sequence[Pictures]) -> Any:
    """Return the ``openvino.Model`` in 8 bits; what prepares the pictures stays in float."""
    for package in ("onnx", "openvino"):
        needed(package, EXTRA, WHAT)
    nncf = needed("nncf", EXTRA, WHAT)
    nncf.set_log_level(logging.ERROR)
    model = openvino.model(content)
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    # what is redirected are its progress bars
    with kept_signal_stack(), redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: fed(content, batch)),
            subset_size=len(batches),
            # zero need not be in the middle of the activations' range: half as many pictures of
            # the tutorial's network change their class, and 0.7 as many of the fast ones
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=_before(first), validate=False),
        )


def save(model: Any, content: Content, stem: Path) -> list[Path]:
    """Write ``stem.xml`` and ``stem.bin`` with the metadata."""
    return openvino.save(model, content, stem)


def _before(operation: Any) -> list[str]:
    """Return the names of all from which an OpenVINO node is computed, constants aside."""
    names: set[str] = set()
    waiting = [operation.input_value(0).get_node()]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name not in names and node.get_type_name() not in ("Constant", "Parameter"):
            names.add(name)
            waiting += [value.get_node() for value in node.input_values()]
    return sorted(names)
