from __future__ import annotations

import os
import pickle
import pickletools
import random
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

from peewit.data.cifar import unpickle
from peewit.data.cifar.unpickle import UnreadableFileError, loads

BATCH = {
    b"batch_label": b"training batch 1 of 5",
    b"labels": [6, 9, 0, 255, 300, 70_000],
    b"data": np.arange(256, dtype=np.uint8).reshape(2, 128),
    b"filenames": [b"leptodactylus.png", b"camion_\xe9.png"],
    b"num_vis": 3072,
    b"nothing": None,
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_protocol_round_trips(protocol: int, order: Any) -> None:
    batch = BATCH | {b"data": np.array(BATCH[b"data"], order=order)}
    read = loads(pickle.dumps(batch, protocol=protocol))
    assert list(read) == [key.decode() for key in batch]
    assert read["labels"] == batch[b"labels"]
    assert read["filenames"] == batch[b"filenames"]
    assert read["num_vis"] == 3072
    assert read["nothing"] is None
    data = read["data"]
    assert isinstance(data, np.ndarray)
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data, BATCH[b"data"])


@pytest.mark.parametrize("protocol", range(6))
def test_keys_can_be_text(protocol: int) -> None:
    assert loads(pickle.dumps({"labels": [1], "name": "caf\xe9"}, protocol)) == {
        "labels": [1],
        "name": "caf\xe9",
    }


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_strings_of_python_2_are_bytes(module: str) -> None:
    # written by Python 2 and numpy 1 in protocol 2, like the published files
    pickled = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04c"
        + module.encode()
        + b"\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tbI00\nT\x06\x00\x00\x00\x00\x01\x02\xfd\xfe\xfftbu."
    )
    read = loads(pickled)
    assert read["labels"] == [6, 9]
    np.testing.assert_array_equal(read["data"], [[0, 1, 2], [253, 254, 255]])


def test_strings_of_python_2_have_escapes_in_protocol_0() -> None:
    pickled = b"(dp1\nS'labels'\np2\n(lp3\nI6\naI9\nasS'na\\'me\\xff'\np4\nS\"it's\"\np5\ns."
    assert loads(pickled) == {"labels": [6, 9], "na'me\xff": b"it's"}


class Calls:
    """An object whose pickle calls a function when Python loads it."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_calls_nothing(protocol: int, tmp_path: Any) -> None:
    victim = tmp_path / "victim"
    for hostile in (
        Calls(os.mkdir, str(victim)),
        Calls(eval, f"open({str(victim)!r}, 'w')"),
        Calls(os.system, f"touch {victim}"),
        np.array([Calls(os.mkdir, str(victim))], dtype=object),
    ):
        pickled = pickle.dumps({b"labels": [1], b"data": hostile}, protocol=protocol)
        with pytest.raises(UnreadableFileError):
            loads(pickled)
    assert not victim.exists()


@contextmanager
def peak_below(limit: int) -> Iterator[None]:
    """Fail if Python's allocators hold more than ``limit`` bytes at once within the block."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def op(name: str) -> bytes:
    return next(o.code for o in pickletools.opcodes if o.name == name).encode("latin-1")


# Pieces of a pickle that are put where the value of a key belongs.
HOSTILE = {
    "global": b"cos\nsystem\n",
    "numpy's other functions": b"cnumpy\nload\n",
    "dotted name": op("SHORT_BINUNICODE")
    + b"\x05numpy"
    + op("SHORT_BINUNICODE")
    + b"\x10ndarray.__class_"
    + op("STACK_GLOBAL"),
    "inst": b"(ios\nsystem\n",
    "obj": b"(cnumpy\nndarray\no",
    "newobj": b"cnumpy\nndarray\n)\x81",
    "newobj_ex": b"cnumpy\nndarray\n)}\x92",
    "extension": b"\x82\x01",
    "persistent": b"Pid\n",
    "persistent from the stack": b"K\x01Q",
    "out of band": b"\x97",
    "float": b"G" + struct.pack(">d", 1.0),
    "set": b"\x8f",
    "dup": b"K\x012",
    "call of a number": b"K\x01K\x02\x85R",
    "ndarray called": b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R",
    "encode to another codec": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R",
    "build of a list": b"]}b",
    "build of nothing": b"b",
    "append to a dict": b"}K\x01a",
    "item of a list": b"]K\x01K\x02s",
    "list of lists": b"]]a",
    "dict in a dict": b"}",
    "tuple": b"K\x01\x85",
    "a function": b"c_codecs\nencode\n",
    "object dtype": b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R",
    "unknown memo": b"h\x07",
    "unknown opcode": b"\xff",
    "protocol 9": b"\x80\x09",
    "long number": b"L" + b"9" * 50 + b"L\n",
    "longer number": b"\x8a\xff" + b"\x01" * 255,
    "long bytes": op("BINBYTES8") + struct.pack("<Q", 1 << 62),
    "long text": op("BINUNICODE8") + struct.pack("<Q", 1 << 62),
    "long bytearray": op("BYTEARRAY8") + struct.pack("<Q", (1 << 63) - 1),
    "bad text": b"X\x01\x00\x00\x00\xff",
    "half a surrogate pair": b"X\x03\x00\x00\x00\xed\xa0\x80",
    "half a surrogate pair in protocol 0": b"V\\ud800\n",
    "half a surrogate pair in a list": b"](X\x03\x00\x00\x00\xed\xa0\x80e",
    "bad string": b"S'\n",
    "bad escape": b"S'\\x1'\n",
    "bad number": b"Ione\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_operations_that_a_batch_does_not_need_are_refused(piece: bytes) -> None:
    before, after = b"\x80\x02}X\x04\x00\x00\x00data", b"s."
    assert loads(before + b"K\x07" + after) == {"data": 7}
    with pytest.raises(UnreadableFileError):
        loads(before + piece + after)


@pytest.mark.parametrize("top", [b"]", b"K\x01", b"cnumpy\nndarray\n", b""])
def test_only_a_dict_is_a_batch(top: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        loads(b"\x80\x02" + top + b".")


def array(shape: bytes, raw: bytes, dtype: bytes = b"u1") -> bytes:
    """Return a pickled dict with an array that has the given state, protocol 2."""
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU"
        + bytes([len(dtype)])
        + dtype
        + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\n"
        + raw
        + b"tbs."
    )


def test_an_array_has_exactly_its_bytes() -> None:
    assert loads(array(b"K\x03\x85", b"U\x03abc"))["data"].tolist() == [97, 98, 99]  # type: ignore[attr-defined]
    for shape in (
        b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86",  # 4 exabytes
        b"K\x04\x85",
        b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86",  # -1 x -3
        b"N\x85",
        b"K\x03",
        b"U\x01a\x85",
        b"K\x01K\x01K\x01K\x01K\x03(tt",
    ):
        with pytest.raises(UnreadableFileError):
            loads(array(shape, b"U\x03abc"))


@pytest.mark.parametrize("dtype", [b"O", b"i8", b"V4", b"U9", b"f4"])
def test_other_types_than_uint8_are_refused(dtype: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="other than uint8"):
        loads(array(b"K\x03\x85", b"U\x03abc", dtype))


def test_an_array_without_state_is_refused() -> None:
    whole = array(b"K\x03\x85", b"U\x03abc")
    with pytest.raises(UnreadableFileError, match="without content"):
        loads(whole[: whole.index(b"(K\x01")] + b"s.")


@pytest.mark.parametrize("tail", [b".", b"K\x01s."], ids=["left", "hashed"])
@pytest.mark.parametrize(
    "bomb",
    [
        b"r\xff\xff\xff\xff",  # 64 GB of memo in Python's unpickler
        b"p99999999999\n",
        b"p-1\n",
        b"N" + b"\x85" * 500_000,  # overflows the C stack when hashed
        b"N" + b"K\x01\x86" * 500_000,
        b"N\x85q\x01" + b"h\x01h\x01\x86q\x01" * 100,  # 2 ** 100 elements to hash
    ],
    ids=["memo", "memo in text", "memo below 0", "nested", "nested with more", "shared"],
)
def test_bombs_use_neither_memory_nor_the_stack(bomb: bytes, tail: bytes) -> None:
    pickled = b"\x80\x02}" + bomb + tail
    with peak_below(1 << 20), pytest.raises(UnreadableFileError):
        loads(pickled)


def test_repeated_calls_cannot_multiply_the_data() -> None:
    text = b"X\x00\x00\x10\x00" + b"a" * (1 << 20)
    copies = b"c_codecs\nencode\nq\x02X\x06\x00\x00\x00latin1q\x03" + b"h\x02h\x01h\x03\x86R" * 5000
    with peak_below(8 << 20), pytest.raises(UnreadableFileError, match="more data than"):
        loads(b"\x80\x02}" + text + b"q\x01" + copies + b".")


def test_batch_cannot_allocate_more_memory_than_its_size() -> None:
    pickled = pickle.dumps(BATCH | {b"data": np.zeros((100, 30_000), np.uint8)}, protocol=2)
    # read as text, decoded to bytes, viewed as an array
    with peak_below(3 * len(pickled)):
        loads(pickled)
    with peak_below(32 << 20):
        assert loads(b"\x80\x02}r" + struct.pack("<I", unpickle.MAX_OPERATIONS - 1) + b".") == {}


def test_overlapping_frames_do_not_change_what_is_read() -> None:
    def frame(length: int) -> bytes:
        return b"\x95" + struct.pack("<Q", length)

    items = b"(K0" + frame(12) + b"K1" + frame(3) + b"K2l"
    # Python's own unpickler, given the bytes as a file, may read K1 twice here
    assert loads(b"\x80\x04}\x8c\x01a" + items + b"s.") == {"a": [48, 49, 50]}
    assert loads(b"\x80\x04" + frame(1 << 62) + b"}\x8c\x01aK\x07s.") == {"a": 7}


@pytest.mark.parametrize("state", [b"N}X\x04\x00\x00\x00kindK\x01s\x86", b"}}\x86", b"K\x01\x85"])
@pytest.mark.parametrize("target", [b"c_codecs\nencode\n", b"cnumpy\nndarray\n", b"K\x01\x85"])
def test_only_arrays_can_have_a_state(target: bytes, state: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        loads(b"\x80\x02}X\x04\x00\x00\x00data" + target + state + b"bs.")


@pytest.mark.parametrize("code", [b"(", b"]", b"}", b"N"])
def test_the_number_of_operations_is_limited(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "MAX_OPERATIONS", 10_000)
    with pytest.raises(UnreadableFileError, match="more than 10,000 operations"):
        loads(code * 20_000)


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_detected(protocol: int) -> None:
    pickled = pickle.dumps(BATCH, protocol=protocol)
    for length in range(len(pickled)):
        with pytest.raises(UnreadableFileError):
            loads(pickled[:length])


def test_random_damage_is_refused_or_harmless() -> None:
    rng = random.Random(0)
    pickles = [pickle.dumps(BATCH, protocol=protocol) for protocol in range(6)]
    for _ in range(6000):
        damaged = bytearray(rng.choice(pickles))
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        # any other exception fails the test
        with suppress(UnreadableFileError):
            loads(bytes(damaged))
    for _ in range(3000):
        with suppress(UnreadableFileError):
            loads(rng.randbytes(rng.randint(0, 60)))
