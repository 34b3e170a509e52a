"""Standard streams whose reader has exited: a closed pipe, a closed terminal, a full disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class _Lossy:
    """A text stream that drops what it cannot write, from the first failure on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _dropping(self._stream):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        with _dropping(self._stream):
            self._stream.flush()


def lossy(stream: TextIO) -> TextIO:
    """Return ``stream`` without its failures: what cannot be written is dropped.

    For notes and progress on stderr: no work may stop because nobody can read about it.
    """
    return stream if isinstance(stream, _Lossy) else cast(TextIO, _Lossy(stream))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Drop what is printed on stdout within the block if its reader has exited.

    Other failures are raised: on a full disk the output would be lost without a word.
    """
    try:
        yield
    except OSError as error:
        if not _is_gone(error):
            raise
        abandon(sys.stdout)


def abandon(stream: TextIO) -> None:
    """Redirect a stream to the null device, so that Python's flush at exit does not fail either."""
    # a stream without a file descriptor raises io.UnsupportedOperation, an OSError
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


@contextmanager
def _dropping(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError:
        abandon(stream)


def _is_gone(error: OSError) -> bool:
    """Return whether the reader of a pipe or the terminal is gone."""
    # EIO: the terminal was closed; EINVAL: Windows says so for a closed pipe
    return error.errno in (errno.EPIPE, errno.EIO) or (
        os.name == "nt" and error.errno == errno.EINVAL
    )
