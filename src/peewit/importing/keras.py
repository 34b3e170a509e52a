"""Import a Keras model as a Run: read it, match it with Peewit's networks, write the run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.importing.architecture import THIS_MODEL
from peewit.importing.isolation import read_isolated
from peewit.importing.match import matching_network
from peewit.importing.reading import KerasModel
from peewit.importing.saved_model import folder as saved_model
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import check_text
from peewit.training import checkpoint, environment
from peewit.training.optimizers import make_optimizer
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState


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
        found = read_isolated(path)
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
    except BaseException:  # Ctrl-C too
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's index, which has a checksum of each array."""
    if path.is_dir():
        return hashlib.sha256(saved_model.read_index(path)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
