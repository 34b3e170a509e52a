"""Protocol buffers' wire format, as far as it is needed: the fields of one message, unread."""

from __future__ import annotations

from collections.abc import Iterator

from peewit.importing.keras_config import broken

Value = int | memoryview
VARINT, EIGHT_BYTES, STRETCH, FOUR_BYTES = 0, 1, 2, 5


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at ``at``, seven bits a byte, least first, and where it ends.

    Raises
    ------
    PeewitError
        The data end in it, or it has more than 64 bits.

    Examples
    --------
    >>> varint(memoryview(bytes([0xAC, 0x02])), 0)
    (300, 2)
    """
    number = 0
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if number >> 64:
                break
            return number, at + place + 1
    raise broken("its structures are damaged")


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field: whole numbers as int, all else as its bytes.

    Raises
    ------
    PeewitError
        It is no whole message.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            number, at = varint(message, at)
            yield tag >> 3, number
            continue
        if kind == STRETCH:
            length, at = varint(message, at)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            length = 4 if kind == FOUR_BYTES else 8
        else:
            raise broken("its structures are damaged")
        if length > len(message) - at:
            raise broken("its structures are cut short")
        yield tag >> 3, message[at : at + length]
        at += length


def parts(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the values of one field, which are bytes, texts or messages.

    >>> [bytes(part) for part in parts(memoryview(b"\\x0a\\x02hi\\x10\\x07"), 1)]
    [b'hi']
    """
    for found, value in fields(message):
        if found == number:
            if isinstance(value, int):
                raise broken("its structures are damaged")
            yield value


def numbers(message: memoryview) -> dict[int, int]:
    """Return the fields that are whole numbers, or four bytes; of several the last one.

    >>> numbers(memoryview(b"\\x0a\\x02hi\\x10\\x07"))
    {2: 7}
    """
    found: dict[int, int] = {}
    for number, value in fields(message):
        if isinstance(value, int):
            found[number] = value
        elif len(value) == 4:
            found[number] = int.from_bytes(value, "little")
    return found
