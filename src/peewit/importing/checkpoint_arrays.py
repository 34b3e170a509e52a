"""The arrays in a TensorFlow checkpoint (``variables.index``, ``variables.data-...``), read safely.

TensorFlow is not needed, no code is run, no size is believed, and every checksum is checked.
Source of the format: TensorFlow, ``tensorflow/core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peewit.importing.crc32c import crc32c, masked
from peewit.importing.keras_config import Shape, broken, unsupported
from peewit.importing.keras_h5 import Array
from peewit.importing.table import read_table
from peewit.importing.wire import numbers, parts
from peewit.system.files import cannot_read

INDEX, LARGEST_INDEX = "variables/variables.index", 16 * 2**20
# TensorFlow's numbers of its types, in the byte order of nearly every machine
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}
# fields of the header, and of an entry
SHARDS, ENDIANNESS = 1, 2
TYPE, SHAPE, SHARD, OFFSET, SIZE, CHECKSUM, SLICES = range(1, 8)


class Checkpoint:
    """An open checkpoint: its arrays are read when they are asked for.

    Parameters
    ----------
    folder : path
        That of the model, with the files ``variables/variables.index`` and
        ``variables/variables.data-...``.

    Raises
    ------
    PeewitError
        The index is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: Mapping[bytes, memoryview] = read_table(
            content(folder, INDEX, LARGEST_INDEX)
        )
        if b"" not in self._entries:
            raise broken("its index of variables is damaged")
        header = numbers(self._entries[b""])
        if header.get(ENDIANNESS, 0) != 0:
            raise unsupported("it was written by a machine with the other order of bytes")
        self._shards = header.get(SHARDS, 0)

    def array(self, key: str, shape: Shape) -> Array:
        """Read one array of a known shape.

        Raises
        ------
        PeewitError
            It is missing, has another shape or no numbers, or is damaged.
        """
        if key.encode() not in self._entries:
            raise broken(f"its checkpoint has no {key}")
        entry = self._entries[key.encode()]
        facts = numbers(entry)
        kind = TYPES.get(facts.get(TYPE, 0))
        given = tuple(
            numbers(size).get(1, 0) for part in parts(entry, SHAPE) for size in parts(part, 2)
        )
        if kind is None or given != shape:
            of = kind or f"type {facts.get(TYPE, 0)}"
            raise broken(f"its {key} is {of} {given}, not floats of shape {shape}")
        size = math.prod(shape) * kind.itemsize
        if facts.get(SIZE, 0) != size or any(True for _ in parts(entry, SLICES)):
            raise broken(f"its {key} is not stored in one piece")
        data = self._stretch(facts.get(SHARD, 0), facts.get(OFFSET, 0), size)
        if masked(crc32c(data)) != facts.get(CHECKSUM, 0):
            raise broken(f"its {key} is damaged: the checksum is wrong")
        values: Array = np.frombuffer(data, kind).reshape(shape).astype(np.float32)
        if not np.isfinite(values).all():
            raise broken(f"its {key} has values that are not finite")
        return values

    def _stretch(self, shard: int, offset: int, size: int) -> bytes:
        path = inside(self._folder, f"variables/variables.data-{shard:05d}-of-{self._shards:05d}")
        try:
            if offset + size > path.stat().st_size:
                raise broken(f"its {path.name} is cut short")
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise cannot_read(path, error) from error
        if len(data) != size:
            raise broken(f"its {path.name} is cut short")
        return data


def inside(folder: Path, name: str) -> Path:
    """Return a file of the folder: a link may lead to it, but not to a place outside.

    Raises
    ------
    PeewitError
        There is no such file, or it is a link to outside.
    """
    path = folder / name
    try:
        real = path.resolve()
        if not real.is_relative_to(folder.resolve()):
            raise broken(f"its {name} is a link to outside the folder")
        if not real.is_file():
            raise broken(f"it has no {name}")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise broken(f"its {name} cannot be found") from error
    return real


def content(folder: Path, name: str, largest: int) -> bytes:
    """Read a whole file of the folder.

    Raises
    ------
    PeewitError
        As ``inside``, or it is larger than ``largest`` bytes.
    """
    path = inside(folder, name)
    try:
        with path.open("rb") as file:
            found = file.read(largest + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(found) > largest:
        raise unsupported(f"its {name} has more than {largest >> 20} MB")
    return found
