"""TensorFlow's SavedModel folders, as Keras 2 writes them: what they say of layers and weights.

Such a folder holds the computation (``saved_model.pb``), which is not needed and not run, the
weights (a checkpoint in ``variables``) and, as Keras writes it, the model's configuration in JSON:
TensorFlow 2.5 to 2.15 in ``keras_metadata.pb``, those before among the objects of
``saved_model.pb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peewit.errors import PeewitError
from peewit.importing.checkpoint_arrays import INDEX, LARGEST_INDEX, Checkpoint, content
from peewit.importing.keras_config import THIS_MODEL, Layer, broken, unsupported
from peewit.importing.keras_h5 import Array
from peewit.importing.wire import fields, numbers, parts
from peewit.system.files import cannot_read

GRAPH, METADATA = "saved_model.pb", "keras_metadata.pb"
LARGEST = {GRAPH: 2**28, METADATA: 2**24}


def read_config(folder: Path) -> bytes:
    """Return the model's JSON configuration.

    Raises
    ------
    PeewitError
        It is no SavedModel, it is damaged, or no Keras 2 wrote it with ``model.save``.
    """
    if not _has(folder, GRAPH):
        raise PeewitError(
            THIS_MODEL,
            f"it is a folder without {GRAPH}, and so no SavedModel",
            "name the folder that model.save wrote, or a .keras or .h5 file",
        )
    if _has(folder, METADATA):
        config = _in_metadata(memoryview(content(folder, METADATA, LARGEST[METADATA])))
    else:
        config = _in_graph(memoryview(content(folder, GRAPH, LARGEST[GRAPH])))
    if not config:
        raise PeewitError(
            THIS_MODEL,
            "its SavedModel has the computation but not the layers (no dropout, for example), as "
            "model.export of Keras 3 writes it",
            "save the model as a file, model.save('model.keras') or model.save('model.h5')",
        )
    if len(config) > LARGEST[METADATA]:
        raise unsupported(f"its configuration has more than {LARGEST[METADATA] >> 20} MB")
    return config


def _has(folder: Path, name: str) -> bool:
    path = folder / name
    try:
        return path.exists() or path.is_symlink()
    except OSError as error:
        raise cannot_read(folder, error) from error


def read_index(folder: Path) -> bytes:
    """Return the index of the weights, whole."""
    return content(folder, INDEX, LARGEST_INDEX)


def _in_metadata(message: memoryview) -> bytes:
    """Find the root's text in a ``SavedMetadata`` of Keras: nodes with number, and text."""
    for node in parts(message, 1):
        if numbers(node).get(2, 0) == 0:
            return _last(node, 5)
    raise broken(f"its {METADATA} describes no model")


def _in_graph(message: memoryview) -> bytes:
    """Find the root's text in a ``SavedModel``: meta graph, object graph, first node, its user."""
    for meta in parts(message, 2):
        for graph in parts(meta, 7):
            for node in parts(graph, 1):
                for user in parts(node, 4):
                    return _last(user, 3)
                return b""
    if not any(True for _ in fields(message)):
        raise broken(f"its {GRAPH} is empty")
    return b""


def _last(message: memoryview, number: int) -> bytes:
    found = b""
    for part in parts(message, number):
        found = bytes(part)
    return found


def read_arrays(folder: Path, layers: Sequence[Layer]) -> list[Array]:
    """Read all weights in Keras's order.

    Raises
    ------
    PeewitError
        The checkpoint is missing, damaged, or not that of these layers.
    """
    checkpoint = Checkpoint(folder)
    with_weights = [layer for layer in layers if layer.weights]
    return [
        checkpoint.array(f"layer_with_weights-{index}/{name}/.ATTRIBUTES/VARIABLE_VALUE", shape)
        for index, layer in enumerate(with_weights)
        for name, shape in layer.weights.items()
    ]
