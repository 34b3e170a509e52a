"""Read the pickles of the CIFAR archives without executing anything in them.

A pickle is a program, and Python's unpickler imports and calls whatever the pickle names.
Restricting the imports (``find_class``) does not make it safe: a single opcode can allocate 64 GB
of memo, and hashing deeply nested tuples overflows the C stack. So `_scan` first checks the pickle
without executing it, and accepts only the opcodes and operands of CIFAR batches. Then `_Unpickler`
loads it, with a stand-in from this file for each name that it imports.
"""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# The largest file (CIFAR-100 train, 50,000 images with file names) has 700,000 in protocol 0.
MAX_OPERATIONS = 1_000_000
# Tuples that no call has consumed yet. A batch, with its one array, has at most three.
_MAX_TUPLES = 8
# Digits of a number that is written as text: Python converts long ones in quadratic time.
_MAX_DIGITS = 20

_TUPLES = frozenset(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"))
_CONTAINERS = _TUPLES | {"EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT"}
_DECIMALS = frozenset(("INT", "LONG", "PUT", "GET"))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_CALLS = frozenset(("REDUCE", "BUILD"))
# Operations that leave an older object on top of the stack.
_UPDATES = frozenset(("MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"))
_ALLOWED = (_CONTAINERS | _DECIMALS | _PUTS | _GETS | _CALLS | _UPDATES).union(
    ("PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL", "STACK_GLOBAL"),
    ("BININT", "BININT1", "BININT2", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
# The name of each opcode, and the size of its operand in bytes (negative: a code of pickletools).
_OPCODES = {
    ord(opcode.code): (opcode.name, opcode.arg.n if opcode.arg else 0)
    for opcode in pickletools.opcodes
    if opcode.name in _ALLOWED
}
# Operands that begin with their length, and the size of that length in bytes.
_PREFIXES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
# Functions and classes that a batch imports; numpy 1 and 2 have some in different modules.
_GLOBALS = {
    ("_codecs", "encode"): "encode",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
}
# What a batch can contain besides lists of numbers and names, and arrays.
_SCALARS = {int, bool, bytes, str, type(None)}
# What Python's unpickler raises for damaged pickles (the warning, if warnings are errors).
_DAMAGE = (
    *(ArithmeticError, AttributeError, BufferError, EOFError, LookupError, TypeError, ValueError),
    *(pickle.UnpicklingError, Warning),
)


class UnreadableFileError(ValueError):
    """A file is damaged, or contains something that does not belong in a CIFAR file."""


def loads(data: bytes) -> dict[str, object]:
    """Read a pickled dict of plain values and uint8 arrays.

    Parameters
    ----------
    data : bytes
        A pickle of protocol 0 to 5, written by Python 2 or 3 and numpy 1 or 2.

    Returns
    -------
    dict
        Keys are str. Values are int, bool, bytes, str, None, lists of int, bytes and str, or uint8
        arrays (which may be read-only).

    Raises
    ------
    UnreadableFileError
        The pickle is truncated or damaged, or contains anything else. Nothing in it has been
        executed.

    Examples
    --------
    >>> import pickle
    >>> import numpy as np
    >>> loads(pickle.dumps({b"labels": [3, 8], b"data": np.zeros((2, 3), np.uint8)}))["labels"]
    [3, 8]
    >>> loads(pickle.dumps({"harmless": print}))
    Traceback (most recent call last):
    peewit.data.cifar.unpickle.UnreadableFileError: it imports builtins.print, \
which a CIFAR batch does not need
    """
    try:
        value = _Unpickler(_scan(data)).load()
        if type(value) is not dict:
            raise UnreadableFileError("it does not contain a dict")
        batch = {_text(key): _plain(item) for key, item in value.items()}
        _check_encodable(batch)
        return batch
    except UnreadableFileError:
        raise
    except _DAMAGE as error:
        raise UnreadableFileError("it is truncated or damaged") from error


def _operations(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Yield the name and the start of each operation, and the start and end of its operand.

    ``pickletools.genops`` on Python 3.11 rejects Python 2's byte strings that are not ASCII, and
    it decodes every operand.
    """
    at = 0
    for _ in range(MAX_OPERATIONS):
        code = data[at]
        if code not in _OPCODES:
            raise UnreadableFileError(
                f"it uses the opcode {bytes([code])!r}, which a CIFAR batch does not need"
            )
        name, size = _OPCODES[code]
        start = at + 1
        if size == pickletools.UP_TO_NEWLINE:
            end = data.index(b"\n", start) + 1
            if name == "GLOBAL":  # module and name, a line each
                end = data.index(b"\n", end) + 1
        elif size < 0:
            start += _PREFIXES[size]
            end = start + int.from_bytes(data[at + 1 : start], "little")
        else:
            end = start + size
        yield name, at, start, end
        if name == "STOP":
            return
        at = end
    raise UnreadableFileError(f"it has more than {MAX_OPERATIONS:,} operations")


def _scan(data: bytes) -> bytes:
    """Return the pickle without its frames, or raise if it is not safe to load.

    What the unpickler can allocate is then limited by the size of the pickle. Tuples are the only
    containers that can be hashed, as keys of a dict: calls must consume all but a few of them, so
    that they cannot be nested deeply, and the memo does not return them, so that they cannot be
    shared and hashing one takes no longer than reading it.
    """
    memo: dict[int, str] = {}  # index to the operation that made the object
    top = ""  # the operation that made the object on top of the stack, if known
    tuples = unframed = 0
    parts = []
    for name, at, start, end in _operations(data):
        size = end - start
        if (name in _DECIMALS and size > _MAX_DIGITS) or (name == "LONG1" and size > 8):
            raise UnreadableFileError("it contains a number that is too long")
        if name in _GETS:
            top = memo.get(_index(name, data[start:end]), "")
            if not top or top in _CONTAINERS:
                raise UnreadableFileError("it repeats an object, which a CIFAR batch does not need")
        elif name in _PUTS:
            index = len(memo) if name == "MEMOIZE" else _index(name, data[start:end])
            # the unpickler allocates 16 bytes for every index up to the largest
            if not top or index >= MAX_OPERATIONS:
                raise UnreadableFileError("it memoizes an object in a way that no pickler does")
            memo[index] = top
        elif name == "FRAME":
            # only a hint for buffering, but if frames overlap, the unpickler may read other bytes
            parts.append(data[unframed:at])
            unframed = end
        elif name != "PROTO":
            if name in _TUPLES:
                tuples += 1
            elif name in _CALLS:
                if top not in _TUPLES:
                    raise UnreadableFileError("it makes a call that a CIFAR batch does not need")
                tuples -= 1
            if tuples > _MAX_TUPLES:
                raise UnreadableFileError("it contains more tuples than a CIFAR batch needs")
            top = "" if name in _UPDATES else name
    parts.append(data[unframed:end])
    return b"".join(parts)


def _index(name: str, operand: bytes) -> int:
    """Return the index in the memo that an operation refers to."""
    if name not in _DECIMALS:
        return int.from_bytes(operand, "little")
    if not operand.strip().isdigit():
        raise UnreadableFileError("it is truncated or damaged")
    return int(operand)


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, with a stand-in for each name that the pickle imports."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(data)), encoding="bytes")
        budget = 2 * len(data) + 1024
        self.globals = {kind: _Global(kind, budget) for kind in _GLOBALS.values()}

    def find_class(self, module: str, name: str, /) -> _Global:
        kind = _GLOBALS.get((module, name))
        if kind is None:
            wanted = f"{module}.{name}"[:80]
            printable = wanted if wanted.isprintable() else repr(wanted)
            raise UnreadableFileError(f"it imports {printable}, which a CIFAR batch does not need")
        return self.globals[kind]


class _Global:
    """Stand-in for a function or a class: a call can only return what a batch contains."""

    def __init__(self, kind: str, budget: int) -> None:
        self.kind = kind
        # bytes that calls may still return, since one long text could be encoded many times
        self.budget = budget

    def __call__(self, *arguments: object) -> object:
        match self.kind, arguments:
            case "encode", (str() as text, "latin1" | "latin-1"):
                return self.encode(text)
            case "reconstruct", (_Global(kind="ndarray"), (0,), b"b" | "b"):
                return _Array()
            case "dtype", ("u1" | b"u1" | "|u1", *_):
                return _Uint8()
            case "frombuffer", (raw, _Uint8(), shape, "C" | "F" as order):
                return _Array(_pixels(raw, shape, fortran=order == "F"))
            case "dtype", _:
                raise UnreadableFileError("it contains an array of something other than uint8")
            case _:
                raise UnreadableFileError("it makes a call that a CIFAR batch does not need")

    def encode(self, text: str) -> bytes:
        """Encode text as Latin-1, which is how Python 3 writes bytes in protocols 0 to 2."""
        self.budget -= len(text)
        if self.budget < 0:
            raise UnreadableFileError("it decodes to more data than a file of its size can contain")
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise UnreadableFileError("it contains text instead of bytes") from error

    def __setstate__(self, state: object) -> None:
        raise UnreadableFileError("it changes a function or a class")


class _Uint8:
    """Stand-in for numpy's uint8 type."""

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order and flags: they mean nothing for a type of one byte."""


class _Array:
    """Stand-in for an array. It has no pixels until its state has been read."""

    def __init__(self, pixels: npt.NDArray[np.uint8] | None = None) -> None:
        self.pixels = pixels

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, shape, _Uint8(), fortran, raw):
                self.pixels = _pixels(raw, shape, fortran=bool(fortran))
            case _:
                raise UnreadableFileError("it contains an array in an unknown format")


def _pixels(raw: object, shape: object, *, fortran: bool) -> npt.NDArray[np.uint8]:
    """Return a uint8 view of ``raw``, not a copy, so that no shape can allocate memory."""
    if not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple) or len(shape) > 4:
        raise UnreadableFileError("it contains an array that is not made of bytes")
    count = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise UnreadableFileError("it contains an array with an invalid shape")
        count *= length
    if count != len(raw):
        raise UnreadableFileError(f"it contains an array of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _text(key: object) -> str:
    """Return the text of a key, which Python 2 wrote as bytes and Python 3 as str."""
    if type(key) is bytes:
        return key.decode("latin-1")
    if type(key) is str:
        return key
    raise UnreadableFileError("it contains a key that is not text")


def _plain(value: object) -> object:
    """Return a value of the dict if a batch can contain it."""
    if isinstance(value, _Array):
        if value.pixels is None:
            raise UnreadableFileError("it contains an array without content")
        return value.pixels
    kinds = set(map(type, value)) if type(value) is list else {type(value)}
    if not kinds <= ({int, bytes, str} if type(value) is list else _SCALARS):
        raise UnreadableFileError("it contains something other than numbers, names and arrays")
    return value


def _check_encodable(batch: dict[str, object]) -> None:
    """Raise ValueError if any text contains half a surrogate pair, which cannot be printed."""
    items = itertools.chain(batch, *(v if type(v) is list else [v] for v in batch.values()))
    # each distinct text once, since a pickle can refer to a long one many times
    for text in {item for item in items if type(item) is str}:
        text.encode()
