"""ONNX: one file for ONNX Runtime, OpenVINO, TensorRT and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.export.agreement import Predictor
from peewit.export.operations import (
    Array,
    Conv,
    Dense,
    Dropout,
    Encode,
    Flatten,
    GeluTanh,
    GlobalMax,
    GlobalMean,
    MaxPool,
    Norm,
    Operation,
    Relu,
    Relu6,
    RepeatEdge,
    Residual,
    Scale,
)
from peewit.images.preprocessing import (
    LUMA,
    ConvertChannels,
    CropToAspect,
    Divide,
    PadToAspect,
    Preprocessing,
    Resize,
    Subtract,
)
from peewit.system.packages import import_required

if TYPE_CHECKING:
    from peewit.export.job import Content
    from peewit.models.encoders.encoder import Encoder

SUFFIXES = (".onnx",)
NOTE = ""
# Gelu is an operator since opset 20, which ONNX Runtime 1.18 and OpenVINO 2024.4 support
OPSET, IR_VERSION = 20, 9
PREFIX = "backbone/"  # of the names of an encoder's nodes and tensors
RAW_INPUT, RAW_OUTPUT = "input", "logits"
INPUT, OUTPUT = "pictures", "probabilities"
FLOAT = 1  # onnx.TensorProto.FLOAT
Shape = list[str | int]  # sizes, and the names of dynamic dimensions


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.onnx``."""
    file = stem.with_name(stem.name + SUFFIXES[0])
    file.write_bytes(model(content).SerializeToString())
    return [file]


def model(content: Content) -> Any:
    """Return the ``onnx.ModelProto``.

    Raw: prepared float32 images (N, C, H, W) -> logits (N, classes). Otherwise with the
    preprocessing inside: uint8 images (N, H, W, C) of any size -> probabilities (N, classes).
    """
    import_required("onnx", "onnx", "export to ONNX")
    graph, rule = Graph(), content.preprocessing
    classes = len([step for step in content.operations if isinstance(step, Dense)][-1].weight)
    dtype: type[np.generic]
    if content.raw:
        name, dtype = RAW_INPUT, np.float32
        shape: Shape = ["N", rule.channels, rule.height, rule.width]
        logits = add_network(graph, name, content.operations, rule)
        output = graph.add("Identity", logits, output=RAW_OUTPUT)
    else:
        name, dtype, shape = INPUT, np.uint8, ["N", "H", "W", "C"]
        prepared = add_preprocessing(graph, name, rule)
        logits = add_network(graph, prepared, content.operations, rule)
        output = graph.add("Softmax", logits, output=OUTPUT, axis=1)
    return graph.model((name, dtype, shape), (output, ["N", classes]), content.metadata)


def load(content: Content, file: Path) -> Predictor:
    """Load the file in ONNX Runtime."""
    runtime = import_required("onnxruntime", "onnx", "checking an ONNX file")
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])

    def forward(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if content.raw:
            feed = {RAW_INPUT: np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
        else:
            feed = {INPUT: images}
        result: npt.NDArray[np.float32] = session.run(None, feed)[0]
        return result

    return content.predictor(forward)


class Graph:
    """Nodes and constants of an ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        # those of an encoder that is included
        self.opset, self.ir_version = OPSET, IR_VERSION
        self.is_own = True

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(np.asarray(values, dtype))
        # ascontiguousarray turns a scalar into an array of shape (1,)
        array = array.reshape(np.shape(values))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def model(
        self,
        input_: tuple[str, type[np.generic], Shape],
        output: tuple[str, Shape],
        metadata: dict[str, str],
    ) -> Any:
        """Return the graph as an ``onnx.ModelProto`` that ONNX's checker has accepted."""
        import onnx
        from onnx import helper

        from peewit import __version__

        name, dtype, shape = input_
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        inputs = [helper.make_tensor_value_info(name, kind, shape)]
        outputs = [helper.make_tensor_value_info(output[0], FLOAT, output[1])]
        model = helper.make_model(
            helper.make_graph(self.nodes, "peewit", inputs, outputs, self.constants),
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=self.ir_version,
            producer_name="peewit",
            producer_version=__version__,
        )
        helper.set_model_props(model, metadata)
        # the shapes of other people's nodes are left to the runtimes
        onnx.checker.check_model(model, full_check=self.is_own)
        return model


def add_preprocessing(graph: Graph, images: str, rule: Preprocessing) -> str:
    """Add the steps of ``rule``: uint8 (N, H, W, C) -> float32 (N, channels, height, width)."""
    x, padding = graph.add("Cast", images, to=FLOAT), ""
    for step in rule.steps:
        match step:
            case ConvertChannels(channels=channels):
                # grey is repeated to three channels; LUMA sums to 1 and converts them back
                x = graph.add("Expand", x, graph.constant([1, 1, 1, 3], np.int64))
                if channels == 1:
                    x = graph.add("MatMul", x, graph.constant(np.reshape(LUMA, (3, 1))))
                x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
            case CropToAspect(height=height, width=width):
                x = _add_crop(graph, x, height, width)
            case PadToAspect(value=value):
                # Without a frame in memory: less the padding's value, the frame's pixels are 0,
                # and their weights in resizing can be left out.
                padding = graph.constant(value)
                x = graph.add("Sub", x, padding)
            case Resize(height=height, width=width):
                sizes = _add_sizes(graph, x)
                framed = _add_frame(graph, sizes, height, width) if padding else sizes
                rows, columns = (
                    _add_resize_weights(graph, size, inside, target)
                    for size, inside, target in zip(framed, sizes, (height, width), strict=True)
                )
                x = graph.add("MatMul", rows, x)
                x = graph.add("MatMul", x, graph.add("Transpose", columns, perm=[1, 0]))
                if padding:
                    x = graph.add("Add", x, padding)
            case Subtract(values=values):
                x = graph.add("Sub", x, _channel_constant(graph, values))
            case Divide(values=values):
                x = graph.add("Div", x, _channel_constant(graph, values))
    return x


def _channel_constant(graph: Graph, values: tuple[float, ...]) -> str:
    """Add a scalar, or one value per channel in the shape (1, C, 1, 1)."""
    single = len(values) == 1
    return graph.constant(values[0] if single else np.reshape(values, (1, -1, 1, 1)))


def _add_sizes(graph: Graph, x: str) -> tuple[str, str]:
    """Add height and width of ``x``, (N, C, H, W), as int64 of shape (1,)."""
    shape = graph.add("Shape", x)
    height, width = (graph.add("Gather", shape, _whole(graph, axis)) for axis in (2, 3))
    return height, width


def _whole(graph: Graph, value: int) -> str:
    """Add a whole number, shape (1,)."""
    return graph.constant([value], np.int64)


def _add_aspect(graph: Graph, sizes: tuple[str, str], height: int, width: int) -> list[str]:
    """Add the height that suits the width at the given aspect ratio, and the width likewise.

    Rounded down, because they are positive whole numbers.
    """
    suiting = []
    for size, numerator, denominator in (
        (sizes[1], height, width),
        (sizes[0], width, height),
    ):
        product = graph.add("Mul", size, _whole(graph, numerator))
        suiting.append(graph.add("Div", product, _whole(graph, denominator)))
    return suiting


def _add_half(graph: Graph, whole: str, part: str) -> str:
    """Add the offset of ``part`` that is centred in ``whole``."""
    return graph.add("Div", graph.add("Sub", whole, part), _whole(graph, 2))


def _add_crop(graph: Graph, x: str, height: int, width: int) -> str:
    """Add ``fitting.crop_region`` for a size that is known only at run time."""
    sizes = _add_sizes(graph, x)
    starts, ends = [], []
    for size, suiting in zip(sizes, _add_aspect(graph, sizes, height, width), strict=True):
        kept = graph.add("Max", graph.add("Min", size, suiting), _whole(graph, 1))
        starts.append(_add_half(graph, size, kept))
        ends.append(graph.add("Add", starts[-1], kept))
    first, last = (graph.add("Concat", *both, axis=0) for both in (starts, ends))
    return graph.add("Slice", x, first, last, graph.constant([2, 3], np.int64))


def _add_frame(graph: Graph, sizes: tuple[str, str], height: int, width: int) -> tuple[str, str]:
    """Add the height and width of ``fitting.pad_region`` for a size known only at run time."""
    framed = []
    for size, suiting in zip(sizes, _add_aspect(graph, sizes, height, width), strict=True):
        padding = _add_half(graph, graph.add("Max", size, suiting), size)
        framed.append(graph.add("Add", size, graph.add("Add", padding, padding)))
    return framed[0], framed[1]


def _add_resize_weights(graph: Graph, size: str, inside: str, target: int) -> str:
    """Add ``preprocessing.resize_weights`` for a size that is known only at run time.

    If ``inside`` is not ``size``, only the weights of as many pixels in the middle, (target,
    inside). Plain arithmetic gives the same result in every runtime; their own antialiased
    resizing operators do not.
    """
    scalar = graph.constant([], np.int64)
    length = graph.add("Cast", graph.add("Reshape", size, scalar), to=FLOAT)
    scale = graph.add("Div", length, graph.constant(float(target)))
    half_width = graph.add("Max", scale, graph.constant(1.0))
    half = (np.arange(target, dtype=np.float32) + 0.5).reshape(target, 1)
    centres = graph.add("Mul", graph.constant(half), scale)
    places = graph.add("Range", graph.constant(0.5), length, graph.constant(1.0))
    distance = graph.add("Abs", graph.add("Sub", places, centres))
    height = graph.add("Sub", graph.constant(1.0), graph.add("Div", distance, half_width))
    triangle = graph.add("Max", height, graph.constant(0.0))
    total = graph.add("ReduceSum", triangle, graph.constant([1], np.int64), keepdims=1)
    weights = graph.add("Div", triangle, total)
    if inside == size:
        return weights
    first = _add_half(graph, size, inside)
    last = graph.add("Add", first, inside)
    return graph.add("Slice", weights, first, last, _whole(graph, 1))


def add_network(graph: Graph, x: str, operations: Sequence[Operation], rule: Preprocessing) -> str:
    """Add the network: (N, C, H, W) -> logits."""
    return _add_operations(graph, x, operations, (rule.channels, rule.height, rule.width))[0]


def _add_operations(
    graph: Graph, x: str, operations: Sequence[Operation], shape: tuple[int, int, int]
) -> tuple[str, tuple[int, int, int]]:
    """Add operations on images of ``shape`` (C, H, W); return the output and its shape."""
    channels, height, width = shape
    flattened: tuple[int, int, int] | None = None
    for operation in operations:
        match operation:
            case Conv(weight=weight, bias=bias, stride=stride, groups=groups):
                names = [graph.constant(array) for array in (weight, bias) if array is not None]
                pads = operation.pads(height, width)
                x = graph.add("Conv", x, *names, pads=pads, strides=[stride] * 2, group=groups)
                channels = weight.shape[0]
                height = (height + pads[0] + pads[2] - weight.shape[2]) // stride + 1
                width = (width + pads[1] + pads[3] - weight.shape[3]) // stride + 1
            case Encode(encoder=encoder):
                x = add_encoder(graph, x, encoder)
            case Residual(operations=inner):
                added, (channels, height, width) = _add_operations(
                    graph, x, inner, (channels, height, width)
                )
                x = graph.add("Add", x, added)
            case Norm(epsilon=epsilon):
                arrays = (operation.gamma, operation.beta, operation.mean, operation.variance)
                names = [graph.constant(array) for array in arrays]
                x = graph.add("BatchNormalization", x, *names, epsilon=epsilon)
            case Relu():
                x = graph.add("Relu", x)
            case Relu6():
                x = graph.add("Clip", x, graph.constant(0.0), graph.constant(6.0))
            case GeluTanh():
                x = graph.add("Gelu", x, approximate="tanh")
            case MaxPool(size=size):
                x = graph.add("MaxPool", x, kernel_shape=[size, size], strides=[size, size])
                height, width = height // size, width // size
            case GlobalMax():
                x = graph.add("ReduceMax", x, graph.constant([2, 3], np.int64), keepdims=0)
            case GlobalMean():
                x = graph.add("ReduceMean", x, graph.constant([2, 3], np.int64), keepdims=0)
            case RepeatEdge():
                edges = graph.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
                x = graph.add("Pad", x, edges, mode="edge")
                height, width = height + 1, width + 1
            case Flatten():
                x = graph.add("Flatten", x, axis=1)
                flattened = (height, width, channels)
            case Dense(weight=weight, bias=bias):
                if flattened is not None:
                    # reorder the weights once instead of the activations in every run
                    weight = _channels_first(weight, flattened)
                    flattened = None
                names = [graph.constant(array) for array in (weight, bias) if array is not None]
                x = graph.add("Gemm", x, *names, transB=1)
            case Scale(by=by):
                x = graph.add("Mul", x, graph.constant(by))
            case Dropout():
                pass
    return x, (channels, height, width)


def add_encoder(graph: Graph, x: str, encoder: Encoder) -> str:
    """Add an image encoder: prepared float32 images (N, 3, H, W) -> features (N, D).

    The graph gets its version of the operators, so it must be the first of the network.

    Raises
    ------
    PeewitError
        It computes a fixed number of pictures at a time.
    """
    from onnx import compose, helper

    contents = encoder.contents
    if contents.batch is not None:
        raise PeewitError(
            "cannot export this network",
            f"its backbone computes {contents.batch:,} pictures at a time, no more and no fewer",
            "train with a backbone that was exported with a dynamic batch size",
        )
    if contents.dtype == np.uint8:
        x = graph.add("Round", graph.add("Mul", x, graph.constant(255.0)))
        x = graph.add("Max", graph.add("Min", x, graph.constant(255.0)), graph.constant(0.0))
    if contents.channels_last:
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(contents.dtype))
    graph.add("Cast", x, output=f"{PREFIX}{contents.input}", to=kind)
    model = compose.add_prefix(contents.model, PREFIX)
    graph.nodes.extend(model.graph.node)
    graph.constants.extend(model.graph.initializer)
    graph.opset, graph.is_own = contents.opset, False
    graph.ir_version = max(IR_VERSION, model.ir_version)
    x = graph.add("Cast", f"{PREFIX}{contents.output}", to=FLOAT)
    match encoder.pooling:
        case "mean of positions":
            x = graph.add("Flatten", graph.add("GlobalAveragePool", x), axis=1)
        case "mean of tokens":
            tokens = graph.add("Transpose", x, perm=[0, 2, 1])  # (N, D, tokens)
            x = graph.add("Flatten", graph.add("GlobalAveragePool", tokens), axis=1)
        case "class token":
            x = graph.add("Gather", x, graph.constant(0, np.int64), axis=1)
    return x


def _channels_first(weight: Array, shape: tuple[int, int, int]) -> Array:
    """Reorder the inputs of a dense layer from (height, width, channels) to channels first."""
    return weight.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(weight), -1)
