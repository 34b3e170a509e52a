"""Small image encoders as ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 6
RANDOM = np.random.default_rng(3)
KERNEL = RANDOM.normal(size=(FEATURES, 3, 4, 4)).astype(np.float32)
FLOAT, HALF, BYTES = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def encoder(
    form: str = "map",
    *,
    shape: list[Any] | None = None,
    kind: int = FLOAT,
    channels_last: bool = False,
    metadata: dict[str, str] | None = None,
    opset: int = 17,
    more: list[Any] | None = None,
) -> onnx.ModelProto:
    """Return an encoder of 16 x 16 images: a convolution with stride 4, and ReLU.

    Parameters
    ----------
    form : str
        "map" (N, 6, 4, 4), "tokens" (N, 16, 6), "class token" (N, 17, 6) or "vector" (N, 6).
    shape : list, optional
        Of the input; by default any number of images of 16 x 16.
    kind : int
        ONNX's number of the input's type.
    channels_last : bool
    metadata : dict, optional
    opset : int
    more : list, optional
        Nodes to add at the end.
    """
    nodes: list[Any] = []

    def add(operator: str, *inputs: str, output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    x = "pixels"
    if kind != FLOAT:
        x = add("Cast", x, output="floats", to=FLOAT)
    if kind == BYTES:
        x = add("Div", x, "full", output="scaled")
    if channels_last:
        x = add("Transpose", x, output="first", perm=[0, 3, 1, 2])
    x = add("Conv", x, "kernel", output="filtered", strides=[4, 4])
    x = add("Relu", x, output="map")
    if form in ("tokens", "class token"):
        x = add("Reshape", x, "flat", output="rows")
        x = add("Transpose", x, output="tokens", perm=[0, 2, 1])
    if form == "class token":
        first = add("ReduceMax", x, output="largest", axes=[1], keepdims=1)
        x = add("Concat", first, x, output="with_class", axis=1)
    if form == "vector":
        x = add("Flatten", add("GlobalAveragePool", x, output="mean"), output="vector")
    nodes += more or []
    shapes = {"map": [FEATURES, 4, 4], "tokens": [16, FEATURES], "vector": [FEATURES]}
    shapes["class token"] = [17, FEATURES]
    shape = shape or (["N", 16, 16, 3] if channels_last else ["N", 3, 16, 16])
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info(x, FLOAT, [shape[0], *shapes[form]])],
        [
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(np.array([0, FEATURES, -1]), "flat"),
            numpy_helper.from_array(np.array(255, np.float32), "full"),
        ],
    )
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(one, 1) for one in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    helper.set_model_props(model, metadata or {})
    return model


def saved(folder: Path, model: onnx.ModelProto | None = None, name: str = "made.onnx") -> Path:
    """Write an encoder into a folder, and return its file."""
    file = folder / name
    file.write_bytes((model or encoder()).SerializeToString())
    return file


def reference(x: np.ndarray, form: str = "map") -> np.ndarray:
    """Return the features of prepared images, (n, 16, 16, 3) -> (n, 6), by NumPy."""
    patches = x.reshape(-1, 4, 4, 4, 4, 3).transpose(0, 1, 3, 5, 2, 4)  # (n, 4, 4, 3, kh, kw)
    found = np.maximum(np.einsum("nyxchw,fchw->nyxf", patches, KERNEL), 0)
    pooled: np.ndarray = found.max((1, 2)) if form == "class token" else found.mean((1, 2))
    return pooled
