"""The configuration and the weights in a SavedModel folder that Keras 2 wrote.

The folder holds the computation (``saved_model.pb``), which is neither needed nor run, the weights
(a checkpoint in ``variables``) and the model's JSON configuration: TensorFlow 2.5 to 2.15 store it
in ``keras_metadata.pb``, earlier versions among the objects in ``saved_model.pb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peewit.errors import PeewitError
from peewit.importing.architecture import THIS_MODEL, Array, Layer, damaged, unsupported
from peewit.importing.saved_model.checkpoint import (
    INDEX,
    MAX_INDEX_SIZE,
    Checkpoint,
    read_file,
)
from peewit.importing.saved_model.protobuf import fields, integers, submessages
from peewit.system.files import cannot_read

GRAPH, METADATA = "saved_model.pb", "keras_metadata.pb"
MAX_SIZE = {GRAPH: 2**28, METADATA: 2**24}


def read_config(folder: Path) -> bytes:
    """Return the model's JSON configuration.

    Raises
    ------
    PeewitError
        The folder is not a SavedModel, is damaged, or was not written by ``model.save`` of Keras 2.
    """
    if not _exists(folder, GRAPH):
        raise PeewitError(
            THIS_MODEL,
            f"the folder is not a SavedModel: it has no {GRAPH}",
            "name the folder that model.save wrote, or a .keras or .h5 file",
        )
    if _exists(folder, METADATA):
        config = _config_in_metadata(memoryview(read_file(folder, METADATA, MAX_SIZE[METADATA])))
    else:
        config = _config_in_graph(memoryview(read_file(folder, GRAPH, MAX_SIZE[GRAPH])))
    if not config:
        raise PeewitError(
            THIS_MODEL,
            "its SavedModel contains the computation but not the layers (no dropout, for example), "
            "as written by model.export of Keras 3",
            "save the model to a file with model.save('model.keras') or model.save('model.h5')",
        )
    if len(config) > MAX_SIZE[METADATA]:
        raise unsupported(f"its configuration is larger than {MAX_SIZE[METADATA] >> 20} MB")
    return config


def read_arrays(folder: Path, layers: Sequence[Layer]) -> list[Array]:
    """Read all weights in Keras's order.

    Raises
    ------
    PeewitError
        The checkpoint is missing, damaged, or does not match the layers.
    """
    checkpoint = Checkpoint(folder)
    with_weights = [layer for layer in layers if layer.weights]
    return [
        checkpoint.array(f"layer_with_weights-{index}/{name}/.ATTRIBUTES/VARIABLE_VALUE", shape)
        for index, layer in enumerate(with_weights)
        for name, shape in layer.weights.items()
    ]


def read_index(folder: Path) -> bytes:
    """Return the content of the checkpoint's index."""
    return read_file(folder, INDEX, MAX_INDEX_SIZE)


def _exists(folder: Path, name: str) -> bool:
    path = folder / name
    try:
        return path.exists() or path.is_symlink()
    except OSError as error:
        raise cannot_read(folder, error) from error


def _config_in_metadata(message: memoryview) -> bytes:
    """Return the root node's metadata in Keras's ``SavedMetadata``: ``nodes[i].metadata``."""
    for node in submessages(message, 1):
        if integers(node).get(2, 0) == 0:  # node_id
            return _last(node, 5)
    raise damaged(f"its {METADATA} does not describe a model")


def _config_in_graph(message: memoryview) -> bytes:
    """Return the root object's metadata: ``meta_graphs.object_graph_def.nodes[0].user_object``."""
    for meta_graph in submessages(message, 2):
        for object_graph in submessages(meta_graph, 7):
            for node in submessages(object_graph, 1):
                for user_object in submessages(node, 4):
                    return _last(user_object, 3)
                return b""
    if not any(True for _ in fields(message)):
        raise damaged(f"its {GRAPH} is empty")
    return b""


def _last(message: memoryview, number: int) -> bytes:
    """Return the last value of a field, as Protocol Buffers define for repeated occurrences."""
    found = b""
    for value in submessages(message, number):
        found = bytes(value)
    return found
