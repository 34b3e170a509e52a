"""A chain of operations as a graph of ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.export.chain import (
    Array,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GeluTanh,
    GlobalMax,
    MaxPool,
    Norm,
    Operation,
    Relu,
    RepeatEdge,
    Scale,
)
from peewit.images.preprocessing import LUMA, Preprocessing

# Gelu is an operator since opset 20, which ONNX Runtime 1.18 and OpenVINO 2024.4 know
OPSET, IR_VERSION = 20, 9
RAW_INPUT, RAW_OUTPUT = "input", "logits"
INPUT, OUTPUT = "pictures", "probabilities"
Axes = list[str | int]  # sizes, and names of those that vary
FLOAT = 1  # onnx.TensorProto.FLOAT


def raw_model(
    operations: Sequence[Operation], rule: Preprocessing, metadata: Mapping[str, str]
) -> Any:
    """Return the bare network: float32 (N, C, H, W), prepared -> logits (N, classes)."""
    graph = Graph()
    logits = network(graph, RAW_INPUT, operations, rule)
    graph.add("Identity", logits, output=RAW_OUTPUT)
    shape: Axes = ["N", rule.channels, rule.height, rule.width]
    classes = _classes(operations)
    return graph.model((RAW_INPUT, np.float32, shape), (RAW_OUTPUT, ["N", classes]), metadata)


def whole_model(
    operations: Sequence[Operation], rule: Preprocessing, metadata: Mapping[str, str]
) -> Any:
    """Return network and preprocessing: uint8 (N, H, W, C), any size -> probabilities."""
    graph = Graph()
    logits = network(graph, prepare(graph, INPUT, rule), operations, rule)
    graph.add("Softmax", logits, output=OUTPUT, axis=1)
    shape: Axes = ["N", "H", "W", "C"]
    classes = _classes(operations)
    return graph.model((INPUT, np.uint8, shape), (OUTPUT, ["N", classes]), metadata)


class Graph:
    """Nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of what it gives."""
        from onnx import helper

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(values, dtype))
        # ascontiguousarray makes a scalar a row of one
        array = array.reshape(np.shape(values))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def model(
        self,
        given: tuple[str, type[np.generic], Axes],
        result: tuple[str, Axes],
        metadata: Mapping[str, str],
    ) -> Any:
        """Return the model, checked."""
        import onnx
        from onnx import helper

        from peewit import __version__

        name, dtype, shape = given
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        inputs = [helper.make_tensor_value_info(name, kind, shape)]
        outputs = [helper.make_tensor_value_info(result[0], FLOAT, result[1])]
        model = helper.make_model(
            helper.make_graph(self.nodes, "peewit", inputs, outputs, self.constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="peewit",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model


def prepare(graph: Graph, pictures: str, rule: Preprocessing) -> str:
    """Add what ``Preprocessing.tensor`` does: (N, H, W, C) uint8 -> (N, channels, h, w)."""
    x = graph.add("Cast", pictures, to=FLOAT)
    if rule.channels == 1:
        # grey stays as it is: the three weights add up to 1
        x = graph.add("Expand", x, graph.constant([1, 1, 1, 3], np.int64))
        x = graph.add("MatMul", x, graph.constant(np.reshape(LUMA, (3, 1))))
    else:
        x = graph.add("Expand", x, graph.constant([1, 1, 1, rule.channels], np.int64))
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    size = graph.add("Shape", pictures)
    x = graph.add("MatMul", _resize_weights(graph, size, 1, rule.height), x)
    columns = _resize_weights(graph, size, 2, rule.width)
    x = graph.add("MatMul", x, graph.add("Transpose", columns, perm=[1, 0]))
    x = graph.add("Div", x, graph.constant(255.0))
    shape = (1, rule.channels, 1, 1)
    if any(rule.mean):
        x = graph.add("Sub", x, graph.constant(np.reshape(rule.mean, shape)))
    if any(value != 1 for value in rule.std):
        x = graph.add("Div", x, graph.constant(np.reshape(rule.std, shape)))
    return x


def _resize_weights(graph: Graph, shape: str, axis: int, target: int) -> str:
    """Add ``preprocessing.resize_weights`` for a size that is known when a picture is there.

    Plain arithmetic gives the same in every runtime; their own antialiased resizing does not.
    """
    size = graph.add("Gather", shape, graph.constant(axis, np.int64))
    length = graph.add("Cast", size, to=FLOAT)
    scale = graph.add("Div", length, graph.constant(float(target)))
    reach = graph.add("Max", scale, graph.constant(1.0))
    half = (np.arange(target, dtype=np.float32) + 0.5).reshape(target, 1)
    centres = graph.add("Mul", graph.constant(half), scale)
    places = graph.add("Range", graph.constant(0.5), length, graph.constant(1.0))
    distance = graph.add("Abs", graph.add("Sub", places, centres))
    share = graph.add("Sub", graph.constant(1.0), graph.add("Div", distance, reach))
    weights = graph.add("Max", share, graph.constant(0.0))
    total = graph.add("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1)
    return graph.add("Div", weights, total)


def network(graph: Graph, x: str, operations: Sequence[Operation], rule: Preprocessing) -> str:
    """Add the network: (N, C, H, W) -> logits."""
    channels, height, width = rule.channels, rule.height, rule.width
    flattened: tuple[int, int, int] | None = None
    for operation in operations:
        match operation:
            case Conv(weight=weight, bias=bias, padding=padding):
                names = [graph.constant(part) for part in (weight, bias) if part is not None]
                x = graph.add("Conv", x, *names, pads=[padding] * 4)
                channels = weight.shape[0]
                height += 2 * padding - weight.shape[2] + 1
                width += 2 * padding - weight.shape[3] + 1
            case Norm(epsilon=epsilon):
                parts = (operation.gamma, operation.beta, operation.mean, operation.variance)
                names = [graph.constant(part) for part in parts]
                x = graph.add("BatchNormalization", x, *names, epsilon=epsilon)
            case Relu():
                x = graph.add("Relu", x)
            case GeluTanh():
                x = graph.add("Gelu", x, approximate="tanh")
            case MaxPool(size=size):
                x = graph.add("MaxPool", x, kernel_shape=[size, size], strides=[size, size])
                height, width = height // size, width // size
            case GlobalMax():
                x = graph.add("ReduceMax", x, graph.constant([2, 3], np.int64), keepdims=0)
            case RepeatEdge():
                pads = graph.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
                x = graph.add("Pad", x, pads, mode="edge")
                height, width = height + 1, width + 1
            case Flatten():
                x = graph.add("Flatten", x, axis=1)
                flattened = (height, width, channels)
            case Dense(weight=weight, bias=bias):
                if flattened is not None:
                    # the order of the flattened values is changed in the weights, not at each run
                    weight = _channels_first(weight, flattened)
                    flattened = None
                names = [graph.constant(part) for part in (weight, bias) if part is not None]
                x = graph.add("Gemm", x, *names, transB=1)
            case Scale(by=by):
                x = graph.add("Mul", x, graph.constant(by))
            case Dropout():
                pass
    return x


def _channels_first(weight: Array, shape: tuple[int, int, int]) -> Array:
    """Take inputs in the order channels, height, width instead of height, width, channels."""
    return weight.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(weight), -1)


def _classes(operations: Sequence[Operation]) -> int:
    return len([part for part in operations if isinstance(part, Dense)][-1].weight)
