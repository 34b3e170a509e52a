"""The file formats in a SavedModel: valid files are read, malicious ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

import saved_model_files as made
from peewit.errors import PeewitError
from peewit.importing.saved_model.crc32c import crc32c, mask
from peewit.importing.saved_model.leveldb import FOOTER, MAX_ENTRIES, read_table
from peewit.importing.saved_model.protobuf import fields, varint


def read(content: bytes) -> dict[bytes, bytes]:
    return {key: bytes(value) for key, value in read_table(content).items()}


def test_keys_with_a_shared_prefix() -> None:
    first = made.entry_bytes(b"abc", b"1") + made.entry_bytes(b"d", b"2", shared=2)
    second = made.entry_bytes(b"b", b"x" * 999)
    table = made.table(made.block(first, restarts=2), made.block(second))
    assert read(table) == {b"abc": b"1", b"abd": b"2", b"b": b"x" * 999}
    assert read(made.table()) == {}


def handle(offset: int, size: int) -> bytes:
    return made.entry_bytes(b"0", made.varint(offset) + made.varint(size))


ONE = made.block(made.entry_bytes(b"a", b"1"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "incomplete"),
        (b"x" * 100, "incomplete"),
        (made.MAGIC, "incomplete"),
        (b"\xff" * 40 + made.MAGIC, "damaged"),
        (made.table(ONE)[1:], "damaged|truncated"),
        (made.table(b"x" + ONE[1:]), "a checksum does not match"),
        (made.table(made.block(b"", compression=1)), "is compressed"),
        (made.table(made.block(b"", restarts=0)[4:]), "checksum"),
        (made.table(made.block(made.entry_bytes(b"a", b"1", shared=1))), "damaged"),
        (made.table(made.block(b"\0\x7f\0")), "damaged"),
        (made.table(made.block(made.varint(0) * 2 + made.varint(2**63))), "damaged"),
        (made.table(made.block(made.entry_bytes(b"a" * 2000, b""))), "damaged"),
        (made.table_of(ONE, handle(0, 2**63)), "truncated"),
        (made.table_of(ONE, handle(2**63, 2**63)), "truncated"),
        (made.table_of(ONE, handle(0, len(ONE) - 5) * 2), "damaged"),
        (made.table_of(ONE, made.entry_bytes(b"0", b"")), "damaged"),
        (made.table_of(ONE, made.entry_bytes(b"0", b"\xff" * 20)), "damaged"),
    ],
)
def test_invalid_tables_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(PeewitError, match=why):
        read_table(content)


def test_more_restarts_than_the_block_can_hold() -> None:
    content = (2**32 - 1).to_bytes(4, "little") + b"\0"
    block = content + made.stored(content)
    with pytest.raises(PeewitError, match="damaged"):
        read_table(made.table(block))


def test_too_many_entries_are_refused() -> None:
    # 65,537 entries; the checksum is that of the fast implementation, which is tested below
    many = b"".join(
        made.entry_bytes(number.to_bytes(3, "big"), b"") for number in range(MAX_ENTRIES + 1)
    )
    content = many + b"\0\0\0\0" + (1).to_bytes(4, "little") + b"\0"
    block = content + mask(crc32c(content)).to_bytes(4, "little")
    with pytest.raises(PeewitError, match="more than 65536 variables"):
        read_table(made.table(block))


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 5000, 30_000])
def test_the_checksum_agrees_with_the_slow_implementation(length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == made.crc32c(data)
    assert crc32c(memoryview(data)) == made.crc32c(data)


def test_the_checksum_agrees_with_published_values() -> None:
    # RFC 3720, section B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_varints_of_any_length(number: int) -> None:
    data = made.varint(number)
    assert varint(memoryview(data + b"\xff"), 0) == (number, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 11, made.varint(2**64)])
def test_incomplete_varints_are_refused(data: bytes) -> None:
    with pytest.raises(PeewitError, match="damaged"):
        varint(memoryview(data), 0)


def test_fields_of_each_wire_type() -> None:
    message = made.field(1, 5) + b"\x15abcd" + b"\x19abcdefgh" + made.field(1000, b"text")
    found = [(number, value) for number, value in fields(memoryview(message))]
    assert found == [(1, 5), (2, b"abcd"), (3, b"abcdefgh"), (1000, b"text")]


@pytest.mark.parametrize("message", [b"\x0a\x05abcd", b"\x15abc", b"\x0b", b"\x0f", b"\x08"])
def test_truncated_and_unknown_fields_are_refused(message: bytes) -> None:
    with pytest.raises(PeewitError, match=r"damaged|truncated"):
        list(fields(memoryview(message)))


def test_the_footer_has_a_fixed_length() -> None:
    assert len(made.table()) - 2 * len(made.block(b"")) == FOOTER
