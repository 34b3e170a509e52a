"""Files are written whole or not at all; what is wrong with a file is said in one sentence."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from peewit.errors import PeewitError, UsageError, reason_of

# characters on each side of what is not UTF-8
NEARBY = 30


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
    """Write ``text`` to ``path`` in UTF-8, whole or not at all.

    Raises
    ------
    PeewitError
        It cannot be written, or names something that is not in UTF-8.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        # names of any length stand in a line of their own: enough of it to know them by
        before, after = text[: error.start].split("\n")[-1], text[error.start :].split("\n")[0]
        raise PeewitError(
            f"cannot write {path}",
            f"a name in it is not in UTF-8: {before[-NEARBY:] + after[:NEARBY]!a}",
            "give what has that name another",
        ) from error
    with replacing(path) as partial:
        partial.write_bytes(content)


def check_text(name: Path | str) -> None:
    """Refuse a name that is not in UTF-8: few files and programs could say it.

    Raises
    ------
    UsageError
        On Linux names are bytes; these are no text.
    """
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{str(name)!a} is not in UTF-8",
            "the files of a run and other programs could not name it",
            "use another name",
        ) from error


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


def check_format(file: Path, found: Any, known: int) -> None:
    """Refuse a file of a format that is newer than this Peewit knows, or of none.

    Examples
    --------
    >>> check_format(Path("run.json"), 1, known=1)
    """
    if not isinstance(found, int):
        raise damaged(file, "it does not say which format it has")
    if found > known:
        raise PeewitError(
            f"cannot read {file}",
            f"a newer Peewit wrote it (format {found}, this one reads up to {known})",
            "upgrade with pip install --upgrade peewit",
        )


def cannot_read(file: Path, error: OSError) -> PeewitError:
    """Return the sentence for a failed read: which file, and why."""
    return PeewitError(f"cannot read {file}", reason_of(error))


def damaged(file: Path, why: str) -> PeewitError:
    """Return the sentence for a file whose content is not what it should be."""
    return PeewitError(f"cannot read {file}", why, "put a whole copy in its place")
