"""Compile networks with OpenVINO."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peewit.system.packages import import_quietly


def compile_network(network: Path | bytes, **properties: str) -> Any:
    """Return an ``openvino.CompiledModel`` for the CPU that computes in float32.

    OpenVINO's own default is bfloat16 on processors that support it, which is twice as fast but
    changes the results.

    Parameters
    ----------
    network : path or bytes
        An OpenVINO or ONNX file, or the content of an ONNX file.
    **properties : str
        Other OpenVINO properties.

    Raises
    ------
    ImportError
        OpenVINO is not installed.
    RuntimeError
        OpenVINO cannot read or compile the network.
    """
    properties = {"INFERENCE_PRECISION_HINT": "f32", **properties}
    with preserved_signal_stack():
        core = import_quietly("openvino").Core()
        return core.compile_model(core.read_model(network), "CPU", properties)


# bytes: larger than stack_t, whose three fields are in a different order on each system
_STACK_T_SIZE = 64


@contextmanager
def preserved_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack at the end of the block.

    OpenVINO installs its own alternate stack in the thread that first compiles a network, and
    frees that memory together with the network. If another ``Core`` was used in between, the
    thread keeps a pointer to freed memory, and Python, whose signal handlers run on the alternate
    stack, crashes at the next Ctrl-C.
    """
    if os.name == "nt":  # Windows has no alternate signal stacks
        yield
        return
    library, saved = ctypes.CDLL(None), ctypes.create_string_buffer(_STACK_T_SIZE)
    is_saved = library.sigaltstack(None, saved) == 0
    try:
        yield
    finally:
        if is_saved:
            library.sigaltstack(saved, None)
