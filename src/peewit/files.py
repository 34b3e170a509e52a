"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peewit.errors import PeewitError, reason_of


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; put it in place when all went well.

    The content is flushed to the disk before the rename, so that after a crash or a power cut
    ``path`` holds either its old content or its new one. On any failure the temporary file is
    removed and ``path`` is as it was.

    Raises
    ------
    PeewitError
        The folder is missing or read-only, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def cannot_write(path: Path, error: OSError) -> PeewitError:
    """Return the sentence for a failed write: which file, why, and what to do."""
    advice = {
        errno.ENOSPC: "make room on the disk, or choose another folder",
        errno.EDQUOT: "make room in your quota, or choose another folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
        errno.ENOENT: "make the folder first, or choose another",
    }
    reason = reason_of(error)
    return PeewitError(f"cannot write {path}", reason, advice.get(error.errno or 0, ""))


def _umask() -> int:
    # the only portable way to read it is to set it
    mask = os.umask(0)
    os.umask(mask)
    return mask
