"""TensorFlow's SavedModel folder, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from peewit.importing.keras_config import Layer, broken
from peewit.importing.keras_h5 import Array


def read_folder(path: Path) -> tuple[str, Callable[[Sequence[Layer]], list[Array]]]:
    raise broken("SavedModel folders are not read yet")
