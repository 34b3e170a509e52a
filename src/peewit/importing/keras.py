"""A Keras model -> a Run: find out what it is, check it against Peewit's networks, keep it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.importing import keras_archive, keras_h5, saved_model
from peewit.importing.keras_config import THIS_MODEL, Architecture, read_architecture
from peewit.importing.keras_h5 import Array
from peewit.importing.match import matching_network
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import check_text
from peewit.training import checkpoint, environment
from peewit.training.optimizers import make_optimizer
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState


class KerasModel(NamedTuple):
    """What was read of a model: its layers, all weights in Keras's order, the format's name."""

    architecture: Architecture
    arrays: list[Array]
    format: str


def read_model(path: str | Path) -> KerasModel:
    """Read a ``.h5`` or ``.keras`` file or a SavedModel folder, without running any of its code.

    Raises
    ------
    PeewitError
        There is no such file or folder, it is damaged, or the model has something that Peewit
        cannot take.
    """
    path = Path(path)
    check_there(path)
    if path.is_dir():
        architecture = read_architecture(saved_model.read_config(path))
        return KerasModel(
            architecture, saved_model.read_arrays(path, architecture.layers), "SavedModel"
        )
    start = _beginning(path)
    if start.startswith(b"PK"):
        config, weights = keras_archive.read_archive(path)
        architecture = read_architecture(config)
        arrays = keras_archive.archive_arrays(weights, architecture.layers)
        return KerasModel(architecture, arrays, ".keras")
    if start == b"\x89HDF\r\n\x1a\n":
        with keras_h5.opened(path) as file:
            architecture = read_architecture(keras_h5.model_config(file))
            arrays = [
                array
                for layer in architecture.layers
                if layer.weights
                for array in keras_h5.legacy_arrays(file, layer)
            ]
        return KerasModel(architecture, arrays, ".h5")
    raise PeewitError(
        f"cannot import {path}",
        "it is neither HDF5 (.h5) nor a .keras archive" if start else "it is empty",
        "save the model with model.save",
    )


def check_there(path: Path) -> None:
    """Raise PeewitError if there is no file or folder of this name."""
    if not path.is_dir() and not path.is_file():
        raise PeewitError(
            f"cannot import {path}", "there is no such file or folder", "check the path"
        )


def import_keras(
    path: str | Path,
    class_names: Sequence[str],
    *,
    out: str | Path | None = None,
    source: Mapping[str, Any] | None = None,
) -> Run:
    """Make a Run of a Keras model, to evaluate, explain, serve, export or train on.

    Parameters
    ----------
    path : path
        What ``model.save`` wrote: ``.h5``, ``.keras``, or a SavedModel folder of Keras 2.
    class_names : sequence of str
        The classes, in the order of the model's outputs.
    out : path, optional
        The run folder to make; ``runs/<its name>`` by default.
    source : mapping, optional
        The arguments of ``peewit.load`` that give the data that it was trained on.

    Raises
    ------
    PeewitError
        It cannot be read, or the model is none of Peewit's networks.
    UsageError
        The number of names is not that of the outputs, ``out`` is taken, or a name is not in
        UTF-8.
    """
    path, names = Path(path), [str(name) for name in class_names]
    for given in (str(path), *names):
        check_text(given)
    lasting = runfolder.lasting_source(source or {})
    folder = Path(out) if out is not None else Path("runs") / _name(path)
    runfolder.check_free(folder)
    try:
        found = read_model(path)
        name, model = matching_network(found.architecture, found.arrays)
    except PeewitError as error:
        if error.what != THIS_MODEL:
            raise
        raise PeewitError(f"cannot import {path}", error.why, error.todo) from error
    outputs = found.architecture.outputs
    if len(names) != outputs:
        raise UsageError(
            f"{len(names)} class names are given",
            f"the model has {outputs} outputs",
            "give a different name for each, in their order",
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(
            f"two classes have the name {twice!r}", todo="give each class a name of its own"
        )
    _keep(folder, name, model, found, names, path, lasting)
    return Run.open(folder)


def _keep(
    folder: Path,
    name: str,
    model: nn.Module,
    found: KerasModel,
    class_names: list[str],
    path: Path,
    source: dict[str, Any],
) -> None:
    height, width, channels = found.architecture.input_shape
    rule = Preprocessing(height, width, channels, (0.0,) * channels, (1.0,) * channels)
    size = height if height == width else None
    recipe = Recipe(model=name, image_size=size, threads=environment.usable_threads())
    facts = {
        "class_names": class_names,
        "preprocessing": rule.to_dict(),
        "source": source,
        "dataset": {"origin": f"unknown: imported from {path.name}"},
        "environment": environment.describe(recipe.threads or 1),
        "imported": {"file": path.name, "format": found.format, "sha256": _checksum(path)},
    }
    runfolder.create(folder, facts, recipe)
    try:
        checkpoint.write_tensors(folder / runfolder.WEIGHTS, model.state_dict(), {})
        # training on starts from here
        optimizer = make_optimizer(model, recipe)
        checkpoint.save(folder / runfolder.CHECKPOINT, model, optimizer, TrainState())
    except PeewitError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise PeewitError(f"cannot read {path}", (error.strerror or "").lower()) from error


def _checksum(path: Path) -> str:
    """Return that of a file; of a folder, that of its index, which has one for each array."""
    whole = saved_model.read_index(path) if path.is_dir() else path.read_bytes()
    return hashlib.sha256(whole).hexdigest()
