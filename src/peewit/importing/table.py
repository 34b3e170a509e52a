"""Sorted tables of keys and values, as LevelDB writes them: the index of TensorFlow's checkpoints.

From the end: a footer of 48 bytes names the index block, whose values name the data blocks. Each
block ends in a byte for its compression and a checksum.
"""

from __future__ import annotations

from collections.abc import Iterator

from peewit.importing.crc32c import crc32c, masked
from peewit.importing.keras_config import broken, unsupported
from peewit.importing.wire import varint

FOOTER, TRAILER = 48, 5
MAGIC = bytes.fromhex("57fb808b247547db")
# networks have some hundred entries; a hostile table would fill the memory with long keys
MOST_ENTRIES, LONGEST_KEY = 2**16, 2**10


def read_table(content: bytes) -> dict[bytes, memoryview]:
    """Return all keys with their values, which are views of ``content``.

    Raises
    ------
    PeewitError
        It is no whole table, a checksum is wrong, it is compressed, or it is too large.
    """
    if len(content) < FOOTER or content[-len(MAGIC) :] != MAGIC:
        raise broken("its index of variables is not whole")
    data = memoryview(content)
    footer = data[len(data) - FOOTER :]
    at = 0
    for _ in range(2):  # of the index of metadata, which is empty
        _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, at = varint(footer, at)
    found: dict[bytes, memoryview] = {}
    end = 0
    for _, handle in _entries(_block(data, offset, size)):
        offset, at = varint(handle, 0)
        size, at = varint(handle, at)
        # none twice: a small file cannot have the work of a large one
        if offset < end:
            raise broken("its index of variables is damaged")
        end = offset + size
        for key, value in _entries(_block(data, offset, size)):
            found[key] = value
            if len(found) > MOST_ENTRIES:
                raise unsupported(f"it has more than {MOST_ENTRIES} variables")
    return found


def _block(data: memoryview, offset: int, size: int) -> memoryview:
    if offset + size + TRAILER > len(data) - FOOTER:
        raise broken("its index of variables is cut short")
    block = data[offset : offset + size]
    compression = data[offset + size]
    checksum = int.from_bytes(data[offset + size + 1 : offset + size + TRAILER], "little")
    if masked(crc32c(data[offset : offset + size + 1])) != checksum:
        raise broken("its index of variables is damaged: a checksum is wrong")
    if compression:
        raise unsupported("its index of variables is compressed, which no Keras does")
    return block


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the entries of a block; a key is given as what it adds to the one before."""
    if len(block) < 4:
        raise broken("its index of variables is damaged")
    # at the end there are the places where keys are whole, for search, and their number
    restarts = int.from_bytes(block[len(block) - 4 :], "little")
    end = len(block) - 4 * (restarts + 1)
    key = b""
    at = 0
    while at < end:
        shared, at = varint(block, at)
        more, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or more + length > end - at or shared + more > LONGEST_KEY:
            raise broken("its index of variables is damaged")
        key = key[:shared] + bytes(block[at : at + more])
        at += more
        yield key, block[at : at + length]
        at += length
    if at != end:
        raise broken("its index of variables is damaged")
