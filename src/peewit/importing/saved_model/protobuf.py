"""The wire format of Protocol Buffers: the fields of a message, as far as it is needed."""

from __future__ import annotations

from collections.abc import Iterator

from peewit.importing.architecture import damaged

Value = int | memoryview
# wire types
VARINT, EIGHT_BYTES, LENGTH_DELIMITED, FOUR_BYTES = 0, 1, 2, 5


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the variable-length integer at ``at``, and the position after it.

    Raises
    ------
    PeewitError
        The data ends in the middle of it, or it has more than 64 bits.

    Examples
    --------
    >>> varint(memoryview(bytes([0xAC, 0x02])), 0)
    (300, 2)
    """
    number = 0
    # seven bits per byte, least significant first
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if number >> 64:
                break
            return number, at + place + 1
    raise damaged("a Protocol Buffers message in it is damaged")


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield the number and the value of each field: varints as int, others as their bytes.

    Raises
    ------
    PeewitError
        The message is damaged or incomplete.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        wire_type = tag & 7
        if wire_type == VARINT:
            number, at = varint(message, at)
            yield tag >> 3, number
            continue
        if wire_type == LENGTH_DELIMITED:
            length, at = varint(message, at)
        elif wire_type in (FOUR_BYTES, EIGHT_BYTES):
            length = 4 if wire_type == FOUR_BYTES else 8
        else:
            raise damaged("a Protocol Buffers message in it is damaged")
        if length > len(message) - at:
            raise damaged("a Protocol Buffers message in it is truncated")
        yield tag >> 3, message[at : at + length]
        at += length


def submessages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the values of one field whose values are bytes, strings or messages.

    >>> [bytes(value) for value in submessages(memoryview(b"\\x0a\\x02hi\\x10\\x07"), 1)]
    [b'hi']
    """
    for found, value in fields(message):
        if found == number:
            if isinstance(value, int):
                raise damaged("a Protocol Buffers message in it is damaged")
            yield value


def integers(message: memoryview) -> dict[int, int]:
    """Return the fields that are varints or four bytes; the last one counts if repeated.

    >>> integers(memoryview(b"\\x0a\\x02hi\\x10\\x07"))
    {2: 7}
    """
    found: dict[int, int] = {}
    for number, value in fields(message):
        if isinstance(value, int):
            found[number] = value
        elif len(value) == 4:
            found[number] = int.from_bytes(value, "little")
    return found
