"""Sorted tables of keys and values in LevelDB's format, the index of TensorFlow's checkpoints.

A footer of 48 bytes at the end locates the index block, whose values locate the data blocks. Each
block is followed by its compression type (one byte) and its checksum (four bytes).
"""

from __future__ import annotations

from collections.abc import Iterator

from peewit.importing.architecture import damaged, unsupported
from peewit.importing.saved_model.crc32c import crc32c, mask
from peewit.importing.saved_model.protobuf import varint

FOOTER, TRAILER = 48, 5
MAGIC = bytes.fromhex("57fb808b247547db")
# networks have a few hundred entries; a malicious table could exhaust memory with long keys
MAX_ENTRIES, MAX_KEY_LENGTH = 2**16, 2**10


def read_table(content: bytes) -> dict[bytes, memoryview]:
    """Return all keys with their values, which are views of ``content``.

    Raises
    ------
    PeewitError
        The table is incomplete, compressed or too large, or a checksum does not match.
    """
    if len(content) < FOOTER or content[-len(MAGIC) :] != MAGIC:
        raise damaged("its index of variables is incomplete")
    data = memoryview(content)
    footer = data[len(data) - FOOTER :]
    at = 0
    for _ in range(2):  # skip offset and size of the metaindex block, which is empty
        _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, at = varint(footer, at)
    table: dict[bytes, memoryview] = {}
    end = 0
    for _, handle in _entries(_block(data, offset, size)):
        offset, at = varint(handle, 0)
        size, at = varint(handle, at)
        # blocks must not overlap, or a small file could cause the work of a large one
        if offset < end:
            raise damaged("its index of variables is damaged")
        end = offset + size
        for key, value in _entries(_block(data, offset, size)):
            table[key] = value
            if len(table) > MAX_ENTRIES:
                raise unsupported(f"it has more than {MAX_ENTRIES} variables")
    return table


def _block(data: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + TRAILER > len(data) - FOOTER:
        raise damaged("its index of variables is truncated")
    block = data[offset : offset + size]
    compression = data[offset + size]
    checksum = int.from_bytes(data[offset + size + 1 : offset + size + TRAILER], "little")
    if mask(crc32c(data[offset : offset + size + 1])) != checksum:
        raise damaged("its index of variables is damaged: a checksum does not match")
    if compression:
        raise unsupported("its index of variables is compressed, which Keras never does")
    return block


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the entries of a block, whose keys are stored as differences to the previous key."""
    if len(block) < 4:
        raise damaged("its index of variables is damaged")
    # the block ends with the offsets of complete keys, for binary search, and their number
    restarts = int.from_bytes(block[len(block) - 4 :], "little")
    end = len(block) - 4 * (restarts + 1)
    key = b""
    at = 0
    while at < end:
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        length, at = varint(block, at)
        too_long = shared + unshared > MAX_KEY_LENGTH
        if shared > len(key) or unshared + length > end - at or too_long:
            raise damaged("its index of variables is damaged")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + length]
        at += length
    if at != end:
        raise damaged("its index of variables is damaged")
