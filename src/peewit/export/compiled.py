"""Networks compiled by OpenVINO."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peewit.export.quiet import quiet


def compiled(network: Path | bytes, **settings: str) -> Any:
    """Return the ``openvino.CompiledModel`` for the processor, which computes in float32.

    Its own choice is bfloat16 where the processor has it: twice as fast, other answers.

    Parameters
    ----------
    network : path or bytes
        A file of OpenVINO's or ONNX, or the content of an ONNX file.
    **settings : str
        Other properties of OpenVINO's.

    Raises
    ------
    ImportError
        OpenVINO is not installed.
    RuntimeError
        It cannot read or compute the network.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32", **settings}
    with kept_signal_stack():
        core = quiet("openvino").Core()
        return core.compile_model(core.read_model(network), "CPU", settings)


# more than the three fields of stack_t, whose order depends on the system
_SIZE = 64


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's alternate signal stack back as it was before the block.

    OpenVINO gives the thread that first compiles a network one of its own, and takes that memory
    away with the network. Where another of its cores came between, the thread is left with memory
    that is gone, and Python, whose handlers run on such a stack, dies of the next Ctrl-C.
    """
    if os.name == "nt":  # has no such thing
        yield
        return
    library, before = ctypes.CDLL(None), ctypes.create_string_buffer(_SIZE)
    known = library.sigaltstack(None, before) == 0
    try:
        yield
    finally:
        if known:
            library.sigaltstack(before, None)
