"""Read the pickles of the CIFAR archives without being able to run anything.

A pickle is a program for a small stack machine, and Python's own machine can be told to import and
call whatever it likes. Forbidding it the imports (``Unpickler.find_class``) does not make it safe:
one opcode can still ask for 64 GB of memo, or nest tuples until hashing them overflows the C stack.
So this is a machine of its own (`peewit.data.cifar.machine`), which knows only the opcodes that
these files use, in all six protocols, and whose values can only be ints, bytes, text, lists, tuples
and dicts of those, and uint8 arrays. What it may allocate is bounded by the size of the pickle.
"""

from __future__ import annotations

import struct

from peewit.data.cifar.machine import Array, Machine, Operation, UnreadablePickleError, text_of


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
    >>> import numpy as np
    >>> loads(pickle.dumps({b"labels": [3, 8], b"data": np.zeros((2, 3), np.uint8)}))["labels"]
    [3, 8]
    >>> loads(pickle.dumps({"harmless": print}))
    Traceback (most recent call last):
    peewit.data.cifar.machine.UnreadablePickleError: it asks for builtins.print, \
which no batch needs
    """
    try:
        value = Machine(data).run(_OPERATIONS)
    except (IndexError, struct.error) as error:
        raise UnreadablePickleError("it is cut or damaged") from error
    if type(value) is not dict:
        raise UnreadablePickleError("it does not hold a dict")
    return {text_of(key): _finished(item) for key, item in value.items()}


def _finished(item: object) -> object:
    if not isinstance(item, Array):
        return item
    if item.pixels is None:
        raise UnreadablePickleError("it holds an array without content")
    return item.pixels


_U2, _I4, _U4, _U8 = (struct.Struct(code) for code in ("<H", "<i", "<I", "<Q"))
# the names in the comments are those of Python's pickletools
_OPERATIONS: dict[int, Operation] = {
    ord(code): operation
    for code, operation in {
        b"\x80": Machine.protocol,  # PROTO
        b"\x95": lambda m: m.take(8) and None,  # FRAME: a hint for buffering
        b"(": Machine.mark,  # MARK
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
        b"S": Machine.escaped,  # STRING
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
        b"c": Machine.named,  # GLOBAL
        b"\x93": Machine.named_by_stack,  # STACK_GLOBAL
        b"R": Machine.call,  # REDUCE
        b"b": Machine.build,  # BUILD
    }.items()
}


def _filled(machine: Machine, empty: object, items: list[object]) -> None:
    machine.push(empty)
    if type(empty) is list:
        machine.extend(items)
    else:
        machine.assign(items)
