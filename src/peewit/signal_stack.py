"""The memory on which a thread's signal handlers run."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

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
