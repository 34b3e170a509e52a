"""The arrays in a TensorFlow checkpoint, ``variables.index`` and ``variables.data-...``.

Sizes are checked before anything is read, and every checksum is verified.
Source of the format: TensorFlow, ``tensorflow/core/protobuf/tensor_bundle.proto``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peewit.importing.architecture import Array, Shape, damaged, unsupported
from peewit.importing.saved_model.crc32c import crc32c, mask
from peewit.importing.saved_model.leveldb import read_table
from peewit.importing.saved_model.protobuf import integers, submessages
from peewit.system.files import cannot_read

INDEX, MAX_INDEX_SIZE = "variables/variables.index", 16 * 2**20
# TensorFlow's type numbers, in little-endian byte order
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}
# field numbers of the header and of an entry
SHARDS, ENDIANNESS = 1, 2
TYPE, SHAPE, SHARD, OFFSET, SIZE, CHECKSUM, SLICES = range(1, 8)


class Checkpoint:
    """An open checkpoint; arrays are read on demand.

    Parameters
    ----------
    folder : path
        The model's folder, with the files ``variables/variables.index`` and
        ``variables/variables.data-...``.

    Raises
    ------
    PeewitError
        The index is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: Mapping[bytes, memoryview] = read_table(
            read_file(folder, INDEX, MAX_INDEX_SIZE)
        )
        if b"" not in self._entries:
            raise damaged("its index of variables is damaged")
        header = integers(self._entries[b""])
        if header.get(ENDIANNESS, 0) != 0:
            raise unsupported("its weights are stored in big-endian byte order")
        self._shards = header.get(SHARDS, 0)

    def array(self, key: str, shape: Shape) -> Array:
        """Read one array of a known shape.

        Raises
        ------
        PeewitError
            It is missing, has another shape, is not floating-point, or is damaged.
        """
        if key.encode() not in self._entries:
            raise damaged(f"its checkpoint has no {key}")
        message = self._entries[key.encode()]
        entry = integers(message)
        dtype = TYPES.get(entry.get(TYPE, 0))
        actual = tuple(
            integers(size).get(1, 0)
            for part in submessages(message, SHAPE)
            for size in submessages(part, 2)
        )
        if dtype is None or actual != shape:
            kind = dtype or f"type {entry.get(TYPE, 0)}"
            raise damaged(f"its {key} is {kind} {actual}, not floats of shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        if entry.get(SIZE, 0) != size or any(True for _ in submessages(message, SLICES)):
            raise damaged(f"its {key} is not stored in one piece")
        data = self._read(entry.get(SHARD, 0), entry.get(OFFSET, 0), size)
        if mask(crc32c(data)) != entry.get(CHECKSUM, 0):
            raise damaged(f"its {key} is damaged: the checksum does not match")
        values: Array = np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
        if not np.isfinite(values).all():
            raise damaged(f"its {key} has values that are not finite")
        return values

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        name = f"variables/variables.data-{shard:05d}-of-{self._shards:05d}"
        path = resolve_inside(self._folder, name)
        try:
            if offset + size > path.stat().st_size:
                raise damaged(f"its {path.name} is truncated")
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise cannot_read(path, error) from error
        if len(data) != size:
            raise damaged(f"its {path.name} is truncated")
        return data


def resolve_inside(folder: Path, name: str) -> Path:
    """Return the resolved path of a file in the folder; links must not lead out of the folder.

    Raises
    ------
    PeewitError
        There is no such file, or it is a link to a place outside.
    """
    path = folder / name
    try:
        resolved = path.resolve()
        if not resolved.is_relative_to(folder.resolve()):
            raise damaged(f"its {name} is a link that leads out of the folder")
        if not resolved.is_file():
            raise damaged(f"it has no {name}")
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        raise damaged(f"its {name} cannot be found") from error
    return resolved


def read_file(folder: Path, name: str, max_size: int) -> bytes:
    """Return the content of a file in the folder.

    Raises
    ------
    PeewitError
        As ``resolve_inside``, or the file is larger than ``max_size`` bytes.
    """
    path = resolve_inside(folder, name)
    try:
        with path.open("rb") as file:
            content = file.read(max_size + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(content) > max_size:
        raise unsupported(f"its {name} is larger than {max_size >> 20} MB")
    return content
