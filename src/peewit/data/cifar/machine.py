"""A stack machine for the pickles of CIFAR batches, and the few things that it can make."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
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


class Array:
    """A uint8 array; empty until its state has been read."""

    def __init__(self) -> None:
        self.pixels: npt.NDArray[np.uint8] | None = None


def text_of(value: object) -> str:
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


class Machine:
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

    def run(self, operations: Mapping[int, Operation]) -> object:
        """Carry out the pickle until it stops; return what is on top then."""
        data = self.data
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
                self.push(Array())
            case _Known.DTYPE, ("u1" | b"u1" | "|u1", *_):
                self.push(_Uint8())
            case _Known.FROMBUFFER, (bytes() as raw, _Uint8(), shape, "C" | "F" as order):
                array = Array()
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
            case Array() as array, (1, shape, _Uint8(), fortran, raw):
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


_LEAVES = frozenset((int, bytes, str))
_VALUES = frozenset((int, bytes, str, bool, type(None), list, Array))

Operation = Callable[[Machine], object]
