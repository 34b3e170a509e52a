"""Ctrl-C works after a library has freed the alternate signal stack that it installed."""

import ctypes
import os
import subprocess
import sys

import pytest

from peewit.prediction.runtimes import LOADERS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signal stacks")

# what OpenVINO leaves behind, an alternate stack in freed memory; then Ctrl-C
SCRIPT = """
import ctypes, mmap, signal
from contextlib import nullcontext
from peewit.system.openvino_runtime import preserved_signal_stack

class Stack(ctypes.Structure):
    fields = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
    _fields_ = fields if {linux} else [fields[0], fields[2], fields[1]]

library = ctypes.CDLL(None)
library.mmap.restype = ctypes.c_void_p
with {block}:
    memory = mmap.mmap(-1, 1 << 16)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert library.sigaltstack(ctypes.byref(Stack(address, 0, 1 << 16)), None) == 0
    assert library.munmap(ctypes.c_void_p(address), ctypes.c_size_t(1 << 16)) == 0
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("alive", flush=True)
import os
os._exit(0)
"""


def run(block: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(linux=sys.platform.startswith("linux"), block=block)
    # children inherit it if the parent ignores SIGINT
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + script
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_ctrl_c_raises_keyboard_interrupt() -> None:
    assert run("preserved_signal_stack()").stdout == "alive\n"
    assert run("nullcontext()").returncode < 0  # without it the process crashes


def test_compiling_with_openvino_preserves_the_signal_stack() -> None:
    pytest.importorskip("openvino")
    helper = pytest.importorskip("onnx").helper
    shape = helper.make_tensor_type_proto(1, [1, 1, 2, 2])
    x, y = (helper.make_value_info(name, shape) for name in ("input", "logits"))
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    library = ctypes.CDLL(None)
    before, after = (ctypes.create_string_buffer(64) for _ in range(2))
    library.sigaltstack(None, before)
    forward, _ = LOADERS["OpenVINO"](model.SerializeToString(), False)
    library.sigaltstack(None, after)
    assert after.raw == before.raw
    assert forward is not None  # keeps the network, and with it OpenVINO's stack, alive until here
