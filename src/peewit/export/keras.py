"""Keras's two files, written without Keras: ``.keras`` (Keras 3) and ``.h5`` (any, from 2.4 on)."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.evaluation.inference import softmax
from peewit.export.agreement import Answers
from peewit.export.keras_layers import KerasLayer, Naming, network, preparation
from peewit.export.missing import needed

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".keras", ".h5")
NOTE = ""
# what the files say wrote them: the oldest that reads them, and the one that they were tested with
OLD_KERAS, NEW_KERAS = b"2.4.0", "3.10.0"
# in the zip a fixed time, so that the same run gives the same file
MOMENT = (1980, 1, 1, 0, 0, 0)


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.keras``, and ``stem.h5``, which always holds the bare network.

    TensorFlow 2.4 has no layer that resizes as Peewit does, so its file begins, as the tutorial's
    own does, with pictures that are already divided by 255.
    """
    archive, legacy = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    rule = content.preprocessing
    shape: list[int | None] = [rule.height, rule.width, rule.channels]
    bare = network(content.operations, Naming())
    legacy.write_bytes(h5_file(bare, shape, content.metadata))
    layers = bare
    if not content.raw:
        naming = Naming()
        first = preparation(rule, naming)
        last = naming.layer("Softmax", {"axis": -1})
        layers = [*first, *network(content.operations, naming), last]
        shape = [None, None, rule.channels]
    archive.write_bytes(keras_file(layers, shape, content.metadata))
    return [archive, legacy]


def h5_file(
    layers: Sequence[KerasLayer], shape: list[int | None], metadata: dict[str, str]
) -> bytes:
    """Return the HDF5 file that Keras 2's ``model.save`` would write."""
    entries: list[dict[str, Any]] = [
        {
            "class_name": "InputLayer",
            "config": {
                "batch_input_shape": [None, *shape],
                "dtype": "float32",
                "sparse": False,
                "ragged": False,
                "name": "pictures",
            },
        },
        *({"class_name": layer.kind, "config": layer.config} for layer in layers),
    ]
    config = {"class_name": "Sequential", "config": {"name": "peewit", "layers": entries}}
    h5py = needed("h5py", "keras", "export to Keras")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        # bytes, because TensorFlow 2.4 decodes what it finds
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["peewit"] = json.dumps(metadata).encode()
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for place in (file, top):
            place.attrs["keras_version"], place.attrs["backend"] = OLD_KERAS, b"tensorflow"
        for layer in layers:
            group = top.create_group(layer.name)
            names = [f"{layer.name}/{name}:0" for name in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, values in zip(names, layer.weights.values(), strict=True):
                group.create_dataset(name, data=values)
    return buffer.getvalue()


def keras_file(
    layers: Sequence[KerasLayer], shape: list[int | None], metadata: dict[str, str]
) -> bytes:
    """Return the archive that Keras 3's ``model.save`` would write."""
    first = {"batch_shape": [None, *shape], "dtype": "float32", "name": "pictures"}
    entries = [_entry("InputLayer", first)]
    entries += [_entry(layer.kind, layer.config) for layer in layers]
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "peewit", "trainable": True, "dtype": "float32", "layers": entries},
        "registered_name": None,
        "build_config": {"input_shape": [None, *shape]},
    }
    facts = {"keras_version": NEW_KERAS, "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S")}
    parts = {
        "metadata.json": json.dumps({**facts, "peewit": metadata}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": _weights_file(layers),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, MOMENT), content)
    return buffer.getvalue()


def _entry(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def _weights_file(layers: Sequence[KerasLayer]) -> bytes:
    h5py = needed("h5py", "keras", "export to Keras")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        # groups are named after classes and counted, which is how these layers are named
        for layer in layers:
            group = file.create_group(f"layers/{layer.name}/vars")
            for index, values in enumerate(layer.weights.values()):
                group.create_dataset(str(index), data=np.ascontiguousarray(values))
    return buffer.getvalue()


def answers(content: Content, file: Path) -> Answers | None:
    """Load the file in Keras 3, if it is installed with a backend."""
    if not find_spec("keras") or not find_spec("tensorflow"):
        return None
    # its greetings are of no use here; one is printed whatever the level, unless the faster
    # kernels that it tells of are off, and then the answers are also those of plain float32
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import keras

    model = keras.models.load_model(file, compile=False)

    def forward(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.asarray(model(pictures.astype(np.float32), training=False), np.float32)

    if file.suffix == ".h5":  # always the bare network
        return lambda pictures: softmax(forward(content.preprocessing.array(pictures)))
    return content.answers(forward)
