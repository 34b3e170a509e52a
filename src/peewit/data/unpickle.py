"""Read the pickles of the CIFAR archives without being able to run anything.

A pickle is a program for a small stack machine, and Python's own machine can be told to import and
call whatever it likes. Forbidding it the imports (``Unpickler.find_class``) does not make it safe:
one opcode can still ask for 64 GB of memo, or nest tuples until hashing them overflows the C stack.
So this is a machine of its own, which knows only the opcodes that these files use, in all six
protocols, and whose values can only be ints, bytes, text, lists, tuples and dicts of those, and
uint8 arrays. What it may allocate is bounded by the size of the pickle.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from enum import Enum

import numpy as np
import numpy.typing as npt

# The largest file (CIFAR-100 train, 50,000 images with file names) takes 700,000 in protocol 0.
MAX_OPERATIONS = 1_000_000


class UnreadablePickleError(ValueError):
    """The pickle is damaged, or asks for something that a CIFAR batch does not hold."""


class _Known(Enum):
    """The only things that these pickles may name; they are called below, by our own code."""

    ENCODE = "codecs encode"
    RECONSTRUCT = "numpy reconstruct"
    FROMBUFFER = "numpy frombuffer"
    NDARRAY = "numpy ndarray"
    DTYPE = "numpy dtype"


_NAMES = {
    ("_codecs", "encode"): _Known.ENCODE,
    ("numpy", "ndarray"): _Known.NDARRAY,
    ("numpy", "dtype"): _Known.DTYPE,
    # numpy 1 and 2 have it in different places
    ("numpy.core.multiarray", "_reconstruct"): _Known.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Known.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _Known.FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): _Known.FROMBUFFER,
}


class _Uint8:
    """Stands for numpy's uint8 type."""


class _Array:
    """A uint8 array; empty until its state has been read."""

    def __init__(self) -> None:
        self.pixels: npt.NDArray[np.uint8] | None = None


def loads(data: bytes) -> dict[str, object]:
    """Read a pickled dict of plain values and uint8 arrays.

    Parameters
    ----------
    data : bytes
        A pickle of protocol 0 to 5, written by Python 2 or 3 and numpy 1 or 2.

    Returns
    -------
    dict
        Keys as text. Values: int, bytes, str, None, list or tuple of those, or a uint8 array
        (which may be a read-only view of ``data``).

    Raises
    ------
    UnreadablePickleError
        It is cut or damaged, or it asks for anything else. Nothing in it has been executed.

    Examples
    --------
    >>> import pickle
    >>> loads(pickle.dumps({b"labels": [3, 8], b"data": np.zeros((2, 3), np.uint8)}))["labels"]
    [3, 8]
    >>> loads(pickle.dumps({"harmless": print}))
    Traceback (most recent call last):
    peewit.data.unpickle.UnreadablePickleError: it asks for builtins.print, which no batch needs
    """
    try:
        value = _Machine(data).run()
    except (IndexError, struct.error) as error:
        raise UnreadablePickleError("it is cut or damaged") from error
    if type(value) is not dict:
        raise UnreadablePickleError("it does not hold a dict")
    return {_text(key): _finished(item) for key, item in value.items()}


def _finished(item: object) -> object:
    if not isinstance(item, _Array):
        return item
    if item.pixels is None:
        raise UnreadablePickleError("it holds an array without content")
    return item.pixels


def _text(value: object) -> str:
    """Text from what Python 2 wrote as bytes and Python 3 as text."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise UnreadablePickleError("it has a number or a structure where a name belongs")


def _pixels(raw: object, shape: object, fortran: bool) -> npt.NDArray[np.uint8]:
    """A uint8 array over ``raw``: no copy, so that a shape cannot ask for memory."""
    if isinstance(raw, str):  # Python 2's bytes, through Python 3 in protocol 0 or 1
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes) or not isinstance(shape, tuple) or len(shape) > 4:
        raise UnreadablePickleError("it holds an array that is not made of bytes")
    count = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise UnreadablePickleError("it holds an array of no possible shape")
        count *= length
    if count != len(raw):
        raise UnreadablePickleError(f"it holds an array of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Machine:
    """The stack machine: ``stack`` grows and shrinks, MARK starts a new one above it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        # a dict, not a list: the index is the pickle's to choose, the memory is not
        self.memo: dict[int, object] = {}
        # bytes that calls may still produce: copies of a copy of ... would grow without end
        self.budget = 2 * len(data) + 1024

    def run(self) -> object:
        data, operations = self.data, _OPERATIONS
        for _ in range(MAX_OPERATIONS):
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.pop()
            operation = operations.get(code)
            if operation is None:
                raise UnreadablePickleError(
                    f"it uses operation {bytes([code])!r}, which no batch needs"
                )
            operation(self)
        raise UnreadablePickleError(f"it has more than {MAX_OPERATIONS:,} operations")

    # reading

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise UnreadablePickleError("it is cut or damaged")
        self.at += count
        return piece

    def byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def number(self, layout: struct.Struct) -> int:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return int(value)

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise UnreadablePickleError("it is cut or damaged")
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece

    def decimal(self) -> int:
        line = self.line()
        # Python spends quadratic time on long numbers, and a batch has none
        if len(line) > 20:
            raise UnreadablePickleError("it holds a number that is too long")
        try:
            return int(line.rstrip(b"L"))
        except ValueError as error:
            raise UnreadablePickleError("it is cut or damaged") from error

    def decoded(self, raw: bytes, codec: str) -> str:
        try:
            return raw.decode(codec)
        except UnicodeDecodeError as error:
            raise UnreadablePickleError("it holds text that cannot be decoded") from error

    # the stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise UnreadablePickleError("it refers to something that it never made")
        self.push(self.memo[index])

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # making things

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise UnreadablePickleError("it appends to something that is not a list")
        for item in items:
            if type(item) not in _LEAVES:
                raise UnreadablePickleError(
                    "it holds a list of something other than numbers and names"
                )
        target.extend(items)

    def assign(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnreadablePickleError("it is cut or damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (bytes, str):
                raise UnreadablePickleError("it has a number or a structure where a name belongs")
            if type(value) not in _VALUES:
                raise UnreadablePickleError("it holds something that no batch needs")
            target[key] = value

    def group(self, items: list[object]) -> None:
        # at most the five fields of an array's state or the eight of a type's
        if len(items) > 9:
            raise UnreadablePickleError("it holds a tuple that no batch needs")
        self.push(tuple(items))

    def last(self, count: int) -> None:
        if len(self.stack) < count:
            raise UnreadablePickleError("it is cut or damaged")
        items = self.stack[-count:]
        del self.stack[-count:]
        self.group(items)

    def name(self, module: object, attribute: object) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise UnreadablePickleError("it is cut or damaged")
        known = _NAMES.get((module, attribute))
        if known is None:
            wanted = f"{module}.{attribute}"[:80]
            printable = wanted if wanted.isprintable() else repr(wanted)
            raise UnreadablePickleError(f"it asks for {printable}, which no batch needs")
        self.push(known)

    def named(self) -> None:
        module = self.decoded(self.line(), "utf-8")
        self.name(module, self.decoded(self.line(), "utf-8"))

    def named_by_stack(self) -> None:
        attribute = self.pop()
        self.name(self.pop(), attribute)

    def call(self) -> None:
        arguments = self.pop()
        function = self.pop()
        match function, arguments:
            case _Known.ENCODE, (str() as text, "latin1" | "latin-1"):
                self.budget -= len(text)
                if self.budget < 0:
                    raise UnreadablePickleError("it unfolds to more than a batch can hold")
                try:
                    self.push(text.encode("latin-1"))
                except UnicodeEncodeError as error:
                    raise UnreadablePickleError("it holds text where bytes belong") from error
            case _Known.RECONSTRUCT, (_Known.NDARRAY, (0,), b"b" | "b"):
                self.push(_Array())
            case _Known.DTYPE, ("u1" | b"u1" | "|u1", *_):
                self.push(_Uint8())
            case _Known.FROMBUFFER, (bytes() as raw, _Uint8(), shape, "C" | "F" as order):
                array = _Array()
                array.pixels = _pixels(raw, shape, order == "F")
                self.push(array)
            case _Known.DTYPE, _:
                raise UnreadablePickleError("it holds an array of something other than uint8")
            case _:
                raise UnreadablePickleError("it makes a call that no batch needs")

    def build(self) -> None:
        state = self.pop()
        match self.stack[-1], state:
            case _Uint8(), tuple():
                pass  # the byte order and flags of a type of one byte say nothing
            case _Array() as array, (1, shape, _Uint8(), fortran, raw):
                array.pixels = _pixels(raw, shape, bool(fortran))
            case _:
                raise UnreadablePickleError("it makes something that no batch needs")

    def escaped(self) -> None:
        # Python 2's protocol 0: the bytes as Python source, in quotes
        line = self.line()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise UnreadablePickleError("it is cut or damaged")
        try:
            self.push(codecs.escape_decode(line[1:-1])[0])
        except ValueError as error:
            raise UnreadablePickleError("it is cut or damaged") from error

    def little_endian(self, count: int) -> None:
        if count > 8:
            raise UnreadablePickleError("it holds a number that is too long")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def protocol(self) -> None:
        if self.take(1)[0] > 5:
            raise UnreadablePickleError("it is of a protocol that is not known")


_U2, _I4, _U4, _U8 = (struct.Struct(code) for code in ("<H", "<i", "<I", "<Q"))
_LEAVES = frozenset((int, bytes, str))
_VALUES = frozenset((int, bytes, str, bool, type(None), list, _Array))

_Operation = Callable[[_Machine], None]
# the names in the comments are those of Python's pickletools
_OPERATIONS: dict[int, _Operation] = {
    ord(code): operation
    for code, operation in {
        b"\x80": _Machine.protocol,  # PROTO
        b"\x95": lambda m: m.take(8) and None,  # FRAME: a hint for buffering
        b"(": _Machine.mark,  # MARK
        b"0": lambda m: m.stack.pop() and None,  # POP
        b"N": lambda m: m.push(None),  # NONE
        b"\x88": lambda m: m.push(True),  # NEWTRUE
        b"\x89": lambda m: m.push(False),  # NEWFALSE
        b"I": lambda m: m.push(m.decimal()),  # INT
        b"L": lambda m: m.push(m.decimal()),  # LONG
        b"J": lambda m: m.push(m.number(_I4)),  # BININT
        b"K": lambda m: m.push(m.byte()),  # BININT1
        b"M": lambda m: m.push(m.number(_U2)),  # BININT2
        b"\x8a": lambda m: m.little_endian(m.byte()),  # LONG1
        b"S": _Machine.escaped,  # STRING
        b"T": lambda m: m.push(m.take(m.number(_U4))),  # BINSTRING
        b"U": lambda m: m.push(m.take(m.byte())),  # SHORT_BINSTRING
        b"B": lambda m: m.push(m.take(m.number(_U4))),  # BINBYTES
        b"C": lambda m: m.push(m.take(m.byte())),  # SHORT_BINBYTES
        b"\x8e": lambda m: m.push(m.take(m.number(_U8))),  # BINBYTES8
        b"\x96": lambda m: m.push(m.take(m.number(_U8))),  # BYTEARRAY8
        b"V": lambda m: m.push(m.decoded(m.line(), "raw-unicode-escape")),  # UNICODE
        b"X": lambda m: m.push(m.decoded(m.take(m.number(_U4)), "utf-8")),  # BINUNICODE
        b"\x8c": lambda m: m.push(m.decoded(m.take(m.byte()), "utf-8")),  # SHORT_BINUNICODE
        b"\x8d": lambda m: m.push(m.decoded(m.take(m.number(_U8)), "utf-8")),  # BINUNICODE8
        b"]": lambda m: m.push([]),  # EMPTY_LIST
        b"}": lambda m: m.push({}),  # EMPTY_DICT
        b")": lambda m: m.push(()),  # EMPTY_TUPLE
        b"l": lambda m: _filled(m, [], m.since_mark()),  # LIST
        b"d": lambda m: _filled(m, {}, m.since_mark()),  # DICT
        b"t": lambda m: m.group(m.since_mark()),  # TUPLE
        b"\x85": lambda m: m.last(1),  # TUPLE1
        b"\x86": lambda m: m.last(2),  # TUPLE2
        b"\x87": lambda m: m.last(3),  # TUPLE3
        b"a": lambda m: m.extend([m.pop()]),  # APPEND
        b"e": lambda m: m.extend(m.since_mark()),  # APPENDS
        b"s": lambda m: m.assign([*reversed((m.pop(), m.pop()))]),  # SETITEM
        b"u": lambda m: m.assign(m.since_mark()),  # SETITEMS
        b"p": lambda m: m.remember(m.decimal()),  # PUT
        b"q": lambda m: m.remember(m.byte()),  # BINPUT
        b"r": lambda m: m.remember(m.number(_U4)),  # LONG_BINPUT
        b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
        b"g": lambda m: m.recall(m.decimal()),  # GET
        b"h": lambda m: m.recall(m.byte()),  # BINGET
        b"j": lambda m: m.recall(m.number(_U4)),  # LONG_BINGET
        b"c": _Machine.named,  # GLOBAL
        b"\x93": _Machine.named_by_stack,  # STACK_GLOBAL
        b"R": _Machine.call,  # REDUCE
        b"b": _Machine.build,  # BUILD
    }.items()
}


def _filled(machine: _Machine, empty: object, items: list[object]) -> None:
    machine.push(empty)
    if type(empty) is list:
        machine.extend(items)
    else:
        machine.assign(items)
