"""Read a Keras model in any of its formats; ``isolation`` does this in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from peewit.errors import PeewitError
from peewit.importing import keras_files
from peewit.importing.architecture import Architecture, Array, damaged, read_architecture
from peewit.importing.saved_model import folder as saved_model
from peewit.system.files import cannot_read


class KerasModel(NamedTuple):
    """A parsed model: its architecture, all weights in Keras's order, the name of the format."""

    architecture: Architecture
    arrays: list[Array]
    format: str


def read_model(path: Path) -> KerasModel:
    """Read a ``.h5`` or ``.keras`` file or a SavedModel folder without running its code.

    A damaged file can take any amount of time and memory: for files from elsewhere use
    ``isolation.read_isolated``.

    Raises
    ------
    PeewitError
        There is no such file or folder, it is damaged, or the model is not supported.
    """
    check_there(path)
    try:
        return _read(path)
    except PeewitError:
        raise
    # whatever else HDF5, h5py, zipfile or NumPy raise: OverflowError, RecursionError, MemoryError,
    # struct.error ... were all caused by one changed byte
    except Exception as error:
        raise damaged(f"it is damaged, or was not written by Keras ({type(error).__name__})") from (
            error
        )


def check_there(path: Path) -> None:
    """Raise PeewitError if ``path`` is neither a file nor a folder."""
    if not path.is_dir() and not path.is_file():
        raise PeewitError(
            f"cannot import {path}", "there is no such file or folder", "check the path"
        )


def _read(path: Path) -> KerasModel:
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


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise cannot_read(path, error) from error
