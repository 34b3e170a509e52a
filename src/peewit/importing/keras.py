"""Import a Keras model as a Run: read it, match it with Peewit's networks, write the run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.importing import keras_files
from peewit.importing.architecture import THIS_MODEL, Architecture, Array, read_architecture
from peewit.importing.match import matching_network
from peewit.importing.saved_model import folder as saved_model
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import check_text
from peewit.training import checkpoint, environment
from peewit.training.optimizers import make_optimizer
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState


class KerasModel(NamedTuple):
    """A parsed model: its architecture, all weights in Keras's order, the name of the format."""

    architecture: Architecture
    arrays: list[Array]
    format: str


def read_model(path: str | Path) -> KerasModel:
    """Read a ``.h5`` or ``.keras`` file or a SavedModel folder without running its code.

    Raises
    ------
    PeewitError
        There is no such file or folder, it is damaged, or the model is not supported.
    """
    path = Path(path)
    check_there(path)
    if path.is_dir():
        architecture = read_architecture(saved_model.read_config(path))
        arrays = saved_model.read_arrays(path, architecture.layers)
        return KerasModel(architecture, arrays, "SavedModel")
    magic = _first_bytes(path)
    if magic.startswith(b"PK"):
        return KerasModel(*keras_files.read_archive(path), ".keras")
    if magic == b"\x89HDF\r\n\x1a\n":
        return KerasModel(*keras_files.read_h5(path), ".h5")
    raise PeewitError(
        f"cannot import {path}",
        "it is neither HDF5 (.h5) nor a .keras archive" if magic else "it is empty",
        "save the model with model.save",
    )


def check_there(path: Path) -> None:
    """Raise PeewitError if ``path`` is neither a file nor a folder."""
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
    """Import a Keras model as a Run, which can be evaluated, explained, served and trained further.

    Parameters
    ----------
    path : path
        A model saved by ``model.save``: ``.h5``, ``.keras``, or a SavedModel folder of Keras 2.
    class_names : sequence of str
        Class names in the order of the model's outputs.
    out : path, optional
        The new run folder; by default ``runs/`` and the model's name.
    source : mapping, optional
        The arguments of ``peewit.load`` for the data that the model was trained on.

    Returns
    -------
    Run
        With the status ``imported``.

    Raises
    ------
    PeewitError
        The file cannot be read, or the model is not one of Peewit's networks.
    UsageError
        The number of names differs from the number of outputs, two names are equal, ``out``
        already exists, or a name is not valid UTF-8.
    """
    path, names = Path(path), [str(name) for name in class_names]
    for given in (str(path), *names):
        check_text(given)
    absolute_source = runfolder.lasting_source(source or {})
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
            f"there are {len(names)} class names",
            f"the model has {outputs} outputs",
            "give one name per output, in their order",
        )
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise UsageError(
            f"two classes have the name {duplicate!r}", todo="give each class a different name"
        )
    _write_run(folder, name, model, found, names, path, absolute_source)
    return Run.open(folder)


def _write_run(
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
        # the starting point if training is resumed
        optimizer = make_optimizer(model, recipe)
        checkpoint.save(folder / runfolder.CHECKPOINT, model, optimizer, TrainState())
    except PeewitError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise PeewitError(f"cannot read {path}", (error.strerror or "").lower()) from error


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's index, which has a checksum of each array."""
    content = saved_model.read_index(path) if path.is_dir() else path.read_bytes()
    return hashlib.sha256(content).hexdigest()
