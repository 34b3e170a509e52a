"""Write SavedModel folders byte by byte, so that tests can write invalid ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = bytes.fromhex("57fb808b247547db")
DATA = "variables.data-00000-of-00001"
Arrays = dict[str, npt.NDArray[np.float32]]


def crc32c(data: bytes) -> int:
    """Return the CRC-32C, computed bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def stored(data: bytes) -> bytes:
    """Return the masked checksum of ``data`` as TensorFlow stores it."""
    value = crc32c(data)
    return (((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(number: int, value: int | bytes) -> bytes:
    """Return a field of a message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry_bytes(key: bytes, value: bytes, shared: int = 0) -> bytes:
    """Return an entry of a block that shares ``shared`` bytes with the previous key."""
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def block(content: bytes, restarts: int = 1, compression: int = 0) -> bytes:
    """Return a block with its restart offsets, compression type and checksum."""
    content += b"\0\0\0\0" * restarts + restarts.to_bytes(4, "little")
    signed = content + bytes([compression])
    return signed + stored(signed)


def table(*blocks: bytes) -> bytes:
    """Return a table with these data blocks."""
    handles, at = b"", 0
    for number, data in enumerate(blocks):
        handle = varint(at) + varint(len(data) - 5)
        handles += entry_bytes(b"%d" % number, handle)
        at += len(data)
    return table_of(b"".join(blocks), handles)


def table_of(data: bytes, handles: bytes) -> bytes:
    """Return a table whose index block contains these entries."""
    index, nothing = block(handles), block(b"")
    footer = varint(len(data)) + varint(len(nothing) - 5)
    footer += varint(len(data) + len(nothing)) + varint(len(index) - 5)
    return data + nothing + index + footer.ljust(40, b"\0") + MAGIC


def tensor(array: npt.NDArray[np.float32], offset: int = 0, **changes: Any) -> bytes:
    """Return an array's entry in the index; ``changes`` override fields: kind, shape, shard ..."""
    data = array.tobytes()
    dims = b"".join(field(2, field(1, size)) for size in changes.get("shape", array.shape))
    return (
        field(1, changes.get("kind", 1))
        + field(2, dims)
        + field(3, changes.get("shard", 0))
        + field(4, changes.get("offset", offset))
        + field(5, changes.get("size", len(data)))
        + varint(6 << 3 | 5)
        + changes.get("checksum", stored(data))
        + changes.get("more", b"")
    )


HEADER = field(1, 1)
SETTINGS = {"units": 2, "activation": "linear", "use_bias": True, "name": "dense"}
CONFIG = {
    "class_name": "Sequential",
    "config": {
        "layers": [
            {
                "class_name": "Flatten",
                "config": {
                    "name": "flatten",
                    "batch_input_shape": {"class_name": "__tuple__", "items": [None, 2, 2, 1]},
                },
            },
            {"class_name": "Dense", "config": SETTINGS},
        ]
    },
}
KERNEL, BIAS = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0.5, -1], np.float32)


def key(name: str) -> bytes:
    return f"layer_with_weights-0/{name}/.ATTRIBUTES/VARIABLE_VALUE".encode()


def entries(**changes: Any) -> bytes:
    """Return the entries of the two arrays, with changes to the kernel's."""
    return (
        entry_bytes(b"", changes.pop("header", HEADER))
        + entry_bytes(key("bias"), tensor(BIAS, KERNEL.nbytes))
        + entry_bytes(key("kernel"), tensor(KERNEL, **changes))
    )


def graph(config: bytes) -> bytes:
    """Return a ``saved_model.pb`` as TensorFlow 2.4 writes it, with only the configuration."""
    node = field(4, field(1, b"_tf_keras_sequential") + field(3, config))
    return field(1, 1) + field(2, field(7, field(1, node)))


def metadata(config: bytes) -> bytes:
    """Return a ``keras_metadata.pb``."""
    other = field(2, 1) + field(5, b"{}")
    return field(1, other) + field(1, field(3, b"root") + field(5, config))


def write_saved_model(
    folder: Path, config: Any = CONFIG, index: bytes | None = None, new: bool = True
) -> Path:
    """Write a model of one dense layer, in the layout of TensorFlow 2.5 and later if ``new``."""
    text = json.dumps(config).encode()
    variables = folder / "variables"
    variables.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(graph(b"" if new else text))
    if new:
        (folder / "keras_metadata.pb").write_bytes(metadata(text))
    (variables / "variables.index").write_bytes(table(block(entries())) if index is None else index)
    (variables / DATA).write_bytes(KERNEL.tobytes() + BIAS.tobytes())
    return folder
