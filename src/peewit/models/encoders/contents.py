"""The contents of an ONNX file that is to be an image encoder, checked without computing it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peewit.errors import PeewitError
from peewit.system.files import read_limited
from peewit.system.packages import import_required

EXTRA = "openvino"
# protobuf's own limit
MOST_BYTES = 2**31 - 1
# ViT-L has 2,000
MOST_NODES = 100_000
MOST_PIXELS = 1024  # of a side
# The nodes that Peewit adds have these forms since this version
OLDEST_OPSET = 13
STANDARD = ("", "ai.onnx")
RGB = 3
# onnx.TensorProto's numbers of the types of an input, and of an output
INPUT_TYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 10: np.float16}
OUTPUT_TYPES = (1, 10)
RANKS = (2, 3, 4)


@dataclass(frozen=True, eq=False)
class Contents:
    """An encoder's graph, and what its file says about its input.

    Parameters
    ----------
    model : onnx.ModelProto
        With one output, and the height and width of the input.
    sha256 : str
        Of the file.
    input, output : str
        Names.
    dtype : type
        Of the input: float32, float16 or uint8.
    channels_last : bool
        Whether the input is (N, H, W, 3) instead of (N, 3, H, W).
    size : int
        Height and width of the input in pixels.
    batch : int or None
        Pictures at a time; None for any number.
    normalisation : tuple of tuple of float, or None
        Mean and standard deviation of each channel, from 0 to 1, if the file's metadata has them.
    """

    model: Any
    sha256: str
    input: str
    output: str
    dtype: type[np.generic]
    channels_last: bool
    size: int
    batch: int | None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max(int(one.version) for one in self.model.opset_import if one.domain in STANDARD)

    def with_batch(self, count: int | None) -> Contents:
        """Return the same encoder for ``count`` pictures at a time, None for any number.

        Its nodes may contradict that: this changes the shapes of input and output only.
        """
        model = type(self.model)()
        model.CopyFrom(self.model)
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and value.name in (self.input, self.output):
                dims[0].Clear()
                if count is None:
                    dims[0].dim_param = "N"
                else:
                    dims[0].dim_value = count
        del model.graph.value_info[:]
        return replace(self, model=model, batch=count)


def unsuitable(path: Path, why: str, todo: str = "") -> PeewitError:
    """Return the error that a file is not an encoder that can be used."""
    return PeewitError(f"cannot use {path.name} as a backbone", why, todo)


def read_contents(
    path: Path, output: str | None = None, size: int | None = None, sha256: str | None = None
) -> Contents:
    """Read an ONNX file and check that it can be an image encoder.

    Parameters
    ----------
    path : Path
    output : str, optional
        The name of the output; by default the first that can be features: float, of rank 2, 3 or 4.
    size : int, optional
        Height and width of the input in pixels, which the file may leave open.
    sha256 : str, optional
        What the file must have.

    Raises
    ------
    PeewitError
        It cannot be read, or is not an image encoder that Peewit can use.
    """
    onnx = import_required("onnx", EXTRA, "a backbone")
    try:
        content = read_limited(path, MOST_BYTES)
    except OSError as error:
        raise unsuitable(path, error.strerror or str(error)) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise unsuitable(path, "it is damaged: it is not the file that the run was trained with")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's, of which there are two implementations
        raise unsuitable(path, "it is not an ONNX file") from error
    _check_nodes(path, model)
    graph = model.graph
    stored = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs[:5]) or "none"
        raise unsuitable(path, f"it has {len(inputs)} inputs ({names}): an encoder has one, images")
    pixels = inputs[0]
    dtype, channels_last, size = _input(path, pixels, size)
    chosen = _chosen_output(path, graph, output)
    del graph.output[:]
    graph.output.append(chosen)
    batch = pixels.type.tensor_type.shape.dim[0].dim_value or None
    return Contents(
        *(model, found, pixels.name, chosen.name, dtype, channels_last, size, batch),
        normalisation=_normalisation(path, model),
    )


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and those inside its nodes: the branches and bodies of If, Loop and Scan."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _check_nodes(path: Path, model: Any) -> None:
    """Refuse other operators than the standard ones, other files, and too many nodes."""
    versions = [one.version for one in model.opset_import if one.domain in STANDARD]
    if not model.graph.node or not versions:
        raise unsuitable(path, "it is not an ONNX file, or has no operators")
    if max(versions) < OLDEST_OPSET:
        raise unsuitable(
            path,
            f"it has opset {max(versions)}",
            f"export it with opset {OLDEST_OPSET} or later",
        )
    nodes, tensors = 0, []
    for graph in _graphs(model.graph):
        nodes += len(graph.node)
        tensors += graph.initializer
        for node in graph.node:
            if node.domain not in STANDARD:
                raise unsuitable(
                    path,
                    f"its operator {node.op_type[:50]} is of the domain {node.domain[:50]}",
                    "export it with standard operators only, without an optimiser for a runtime",
                )
            for attribute in node.attribute:
                tensors += [*attribute.tensors, attribute.t]
        if graph.sparse_initializer:
            raise unsuitable(path, "it has sparse weights")
    if nodes > MOST_NODES:
        raise unsuitable(path, f"it has {nodes:,} operators, more than {MOST_NODES:,}")
    if any(one.external_data or one.data_location for one in tensors):
        raise unsuitable(
            path,
            "its weights are in another file",
            "export it into one file, without external data",
        )


def _input(path: Path, pixels: Any, size: int | None) -> tuple[type[np.generic], bool, int]:
    """Return type, layout and size of the input, whose height and width are set."""
    kind = pixels.type.tensor_type
    if kind.elem_type not in INPUT_TYPES or len(kind.shape.dim) != 4:
        raise unsuitable(
            path,
            f"its input {pixels.name[:50]} is not images: float or uint8 of rank 4",
        )
    dims = [one.dim_value for one in kind.shape.dim]  # 0 for one that is not fixed
    channels_last = dims[3] == RGB and dims[1] != RGB
    if not channels_last and dims[1] not in (0, RGB):
        raise unsuitable(path, f"its input has the shape {dims}, and not three channels")
    places = (1, 2) if channels_last else (2, 3)
    given = {dims[place] for place in places} - {0}
    if len(given) > 1:
        raise unsuitable(path, f"its input of {dims[places[0]]} x {dims[places[1]]} is not square")
    if not given and size is None:
        raise unsuitable(
            path,
            "its input can have any size",
            "give the one that it was trained with: --image-size 224",
        )
    fixed = given.pop() if given else size
    assert fixed is not None
    if size not in (None, fixed):
        raise unsuitable(path, f"its input has {fixed} x {fixed} pixels, and not {size} x {size}")
    if not 1 <= fixed <= MOST_PIXELS or not 0 <= dims[0] <= MOST_PIXELS:
        raise unsuitable(path, f"its input has the shape {dims}")
    for place in places:
        kind.shape.dim[place].dim_value = fixed
    kind.shape.dim[3 if channels_last else 1].dim_value = RGB
    return INPUT_TYPES[kind.elem_type], channels_last, fixed


def _chosen_output(path: Path, graph: Any, name: str | None) -> Any:
    names = ", ".join(one.name[:50] for one in graph.output[:10]) or "none"
    if name is not None and name not in {one.name for one in graph.output}:
        raise unsuitable(path, f"it has no output {name}", f"its outputs: {names}")
    for one in graph.output:
        kind = one.type.tensor_type
        ranked = not kind.HasField("shape") or len(kind.shape.dim) in RANKS
        if name in (None, one.name) and kind.elem_type in OUTPUT_TYPES and ranked:
            return one
    raise unsuitable(
        path, f"no output ({names}) can be features: float, (N, D), (N, tokens, D) or (N, D, h, w)"
    )


def _normalisation(path: Path, model: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and the standard deviation in the metadata, ``image_mean`` and ``image_std``.

    These are the names in the preprocessor_config.json of Hugging Face.
    """
    properties = {one.key: one.value for one in model.metadata_props}
    texts = [properties.get(name) for name in ("image_mean", "image_std")]
    if None in texts:
        return None
    try:
        mean, std = (tuple(float(value) for value in json.loads(text or "")) for text in texts)
    except (ValueError, TypeError) as error:
        raise unsuitable(path, "its metadata image_mean and image_std are not numbers") from error
    usable = len(mean) == len(std) == RGB and all(map(math.isfinite, mean)) and min(std) > 0
    if not usable or not all(map(math.isfinite, std)):
        raise unsuitable(path, "its metadata image_mean and image_std are not three numbers each")
    return mean, std
