"""Write files atomically, and report unreadable, unwritable and damaged files."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from peewit.errors import PeewitError, UsageError, reason_of

# characters of context shown on each side of an invalid one
CONTEXT = 30


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` on success.

    The content is flushed to disk before the rename, so that after a crash or a power failure
    ``path`` has either its old content or its new one. On failure the temporary file is removed and
    ``path`` is unchanged.

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
    """Write ``text`` to ``path`` in UTF-8, atomically.

    Raises
    ------
    PeewitError
        The file cannot be written, or the text contains a name that is not valid UTF-8.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        # enough of the line to recognise the name, however long it is
        before, after = text[: error.start].split("\n")[-1], text[error.start :].split("\n")[0]
        raise PeewitError(
            f"cannot write {path}",
            f"it would contain a name that is not UTF-8: {before[-CONTEXT:] + after[:CONTEXT]!a}",
            "rename that file or folder",
        ) from error
    with replacing(path) as partial:
        partial.write_bytes(content)


def check_text(name: Path | str) -> None:
    """Check that the name of a file is valid UTF-8, as most files and programs require.

    Raises
    ------
    UsageError
        It is not; on Linux a name may be any bytes.
    """
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{str(name)!a} is not in UTF-8",
            "neither the files of a run nor other programs can store this name",
            "use another name",
        ) from error


def cannot_write(path: Path, error: OSError) -> PeewitError:
    """Return the error for a failed write: which file, why, and what to do."""
    advice = {
        errno.ENOSPC: "make room on the disk, or choose another folder",
        errno.EDQUOT: "make room in your quota, or choose another folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
        errno.ENOENT: "create the folder first, or choose another",
    }
    reason = reason_of(error)
    return PeewitError(f"cannot write {path}", reason, advice.get(error.errno or 0, ""))


def _umask() -> int:
    # the only portable way to read the umask is to set it
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_format(file: Path, found: Any, known: int) -> None:
    """Raise if the format version ``found`` in ``file`` is missing or newer than ``known``.

    Examples
    --------
    >>> check_format(Path("run.json"), 1, known=1)
    """
    if not isinstance(found, int):
        raise damaged(file, "it has no format version")
    if found > known:
        raise PeewitError(
            f"cannot read {file}",
            f"a newer Peewit wrote it (format {found}, this one reads up to {known})",
            "upgrade with pip install --upgrade peewit",
        )


def read_limited(file: Path, most: int) -> bytes:
    """Return the content of ``file``, which has at most ``most`` bytes.

    Raises
    ------
    PeewitError
        It is larger.
    OSError
        It cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(most + 1)  # not its size, which is 0 for a pipe or a device
    if len(content) > most:
        raise PeewitError(f"cannot read {file}", f"it is larger than {most // 1000:,} kB")
    return content


def cannot_read(file: Path, error: OSError) -> PeewitError:
    """Return the error for a failed read: which file, and why."""
    return PeewitError(f"cannot read {file}", reason_of(error))


def damaged(file: Path, why: str) -> PeewitError:
    """Return the error for a file with invalid content."""
    return PeewitError(f"cannot read {file}", why, "replace it with an intact copy")
