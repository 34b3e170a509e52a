"""Download an archive from the first of several mirrors that works.

Bytes are written to a ``.part`` file next to the target. The next attempt resumes it, from the same
mirror or another, and the checksum of the whole file decides. If a mirror ignores the range and
sends the file from the start, it is written to a second file, which replaces the first once it is
as long. A slow mirror is abandoned for the next one; if all are slow, the fastest is used.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from peewit.data.cifar import layouts
from peewit.data.cifar.layouts import Layout, file_checksum, find_layout
from peewit.data.download.mirror import (
    ConnectionLostError,
    MirrorError,
    NothingLeftError,
    Response,
    SlowError,
    check_content,
)
from peewit.data.download.rate import Meter, Progress, host
from peewit.data.places import SourceNotAvailable
from peewit.errors import PeewitError
from peewit.system.files import cannot_write

# Seconds between two checks of the progress of another process.
PAUSE = 0.5


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When to give up on a mirror."""

    rate: float = 200_000.0
    """Bytes per second below which a mirror is too slow ..."""
    window: float = 20.0
    """... if averaged over this many seconds."""
    stall: float = 20.0
    """Timeout in seconds, for a response and between bytes."""
    resumes: int = 3
    """How often in a row a lost connection to a mirror is resumed."""


class Fetched(NamedTuple):
    """The result of a download."""

    path: Path
    downloaded: bool
    """False if the file was already there."""
    notes: tuple[str, ...] = ()
    """Why mirrors failed, one sentence each."""


def fetch_archive(
    name: str,
    folder: Path,
    *,
    mirrors: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Download the published archive of a source, unless it is already there.

    If another process is downloading it, wait for that process and use its file. Meanwhile
    ``progress`` is called with the progress of the other process.

    Parameters
    ----------
    name : str
        ``cifar10`` or ``cifar100``.
    folder : Path
        Folder for the archive, created if needed.
    mirrors : sequence of str, optional
        URLs to try, in order; by default the known ones.
    progress : callable, optional
        Called a few times per second with a `Progress`.
    patience : Patience, optional
        When to give up on a mirror.

    Returns
    -------
    Fetched
        The path of the archive, which has the published checksum.

    Raises
    ------
    SourceNotAvailable
        No mirror could be used, the folder cannot be written to, or the disk is full. The message
        says why, and how to download the archive by other means.
    """
    layout = find_layout(name)
    target = folder / layout.archive
    download = _Download(layout, target, progress or _silent, patience or Patience())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with download.lock():
            if target.is_file() and _is_published(target, layout):
                return Fetched(target, downloaded=False)
            return Fetched(target, True, tuple(download.run(mirrors or layouts.MIRRORS[name])))
    except OSError as error:
        # not always the archive: it may be the lock or the part
        place = Path(error.filename) if isinstance(error.filename, str) else target
        raise download.cannot_store(cannot_write(place, error)) from error


def _silent(_: Progress) -> None:
    pass


def _is_published(path: Path, layout: Layout) -> bool:
    algorithm, expected = layout.checksum
    return file_checksum(path, algorithm) == expected


class _Download:
    """The download of one archive from any of several mirrors."""

    def __init__(
        self,
        layout: Layout,
        target: Path,
        progress: Callable[[Progress], None],
        patience: Patience,
    ) -> None:
        self.layout, self.target = layout, target
        self.part = target.with_name(f"{target.name}.part")
        self.restarted = target.with_name(f"{target.name}.anew.part")
        self.progress, self.patience = progress, patience

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other process downloads the archive, reporting its progress."""
        import filelock

        lock = filelock.FileLock(self.target.with_name(f".{self.target.name}.lock"))
        meter, before = Meter(self.patience.window), 0
        while True:
            try:
                lock.acquire(timeout=PAUSE)
                break
            except filelock.Timeout:
                received = max(_size(self.part), _size(self.restarted))
                # what was received before the first check says nothing about the rate
                meter.add(max(0, received - before) if before else 0)
                before = received
                total = self.layout.size
                self.progress(Progress("another process", received, total, meter.rate))
        try:
            yield
        finally:
            lock.release()

    def run(self, mirrors: Sequence[str]) -> list[str]:
        """Try the mirrors until one works. Return why those before it failed."""
        self.check_parts()
        self.check_disk_space()
        failures: list[str] = []
        slow: list[tuple[float, str]] = []
        for url in mirrors:
            try:
                self.from_mirror(url, self.patience.rate)
                return failures
            except SlowError as error:
                slow.append((error.rate, url))
                failures.append(f"{host(url)}: {error}")
            except MirrorError as error:
                failures.append(f"{host(url)}: {error}")
        # all are slow or broken: try the slow ones again, the fastest first, without a limit
        for _, url in sorted(slow, reverse=True):
            try:
                self.from_mirror(url, 0.0)
                return failures
            except MirrorError as error:
                failures.append(f"{host(url)}, second attempt: {error}")
        raise self.unavailable(failures)

    def unavailable(self, failures: list[str]) -> SourceNotAvailable:
        """Return the error if all mirrors failed."""
        why = ", ".join(failures) or "no mirror is known"
        by_hand = f"get {self._file()} by other means and put it in {self.target.parent}"
        return SourceNotAvailable(
            f"cannot download {self.layout.title}", why, f"{by_hand}, or give its path with --data"
        )

    def cannot_store(self, error: PeewitError) -> SourceNotAvailable:
        """Return the error if the archive cannot be written to the folder."""
        advice = [error.todo] if error.todo else []
        by_hand = f"get {self._file()} by other means and give its path with --data"
        return SourceNotAvailable(error.what, error.why, ", or ".join([*advice, by_hand]))

    def _file(self) -> str:
        """Return the name, size and checksum of the archive."""
        algorithm, digits = self.layout.checksum
        size = f"{self.layout.size:,} bytes, " if self.layout.size else ""
        return f"{self.layout.archive} ({size}{algorithm} {digits})"

    def check_parts(self) -> None:
        """Raise if something other than a file is where the part is written."""
        for path in (self.part, self.restarted):
            # opening a pipe would wait forever
            if os.path.lexists(path) and not path.is_file():
                raise self.cannot_store(
                    PeewitError(f"cannot write {path}", "it is not a regular file", "remove it")
                )

    def check_disk_space(self) -> None:
        """Raise before the download if the disk does not have enough free space."""
        needed = (self.layout.size or 0) - _size(self.part)
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise self.cannot_store(
                PeewitError(
                    f"cannot download {self.layout.archive} to {self.target.parent}",
                    f"it needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free",
                    "free some disk space, or set PEEWIT_HOME to another folder",
                )
            )

    def from_mirror(self, url: str, min_rate: float) -> None:
        """Download the whole file from one mirror, resuming if the connection is lost."""
        losses, meter = 0, Meter(self.patience.window)
        while True:
            before = _size(self.part)
            try:
                self.transfer(url, min_rate, meter)
            except ConnectionLostError:
                # a mirror that sends a megabyte each time is worth resuming
                losses = 0 if _size(self.part) > before + 1_000_000 else losses + 1
                if losses > self.patience.resumes:
                    raise
                continue
            except NothingLeftError:
                pass  # the part may be complete: its checksum decides
            if _is_published(self.part, self.layout):
                self.put_in_place()
                return
            self.part.unlink()
            # the bytes of an earlier attempt may be to blame: try once from the start
            if not before:
                raise MirrorError("the file that it sent does not have the published checksum")

    def put_in_place(self) -> None:
        """Move the complete part to the target."""
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        if self.target.exists():
            # it is not the published archive, but the user may want to keep it
            self.target.replace(self.target.with_name(f"{self.target.name}.replaced"))
        self.part.replace(self.target)

    def transfer(self, url: str, min_rate: float, meter: Meter) -> None:
        """Request the file from the end of the part on, and write what is received."""
        with Response(url, _size(self.part), self.patience.stall) as response:
            total = self.total_size(response)
            received = response.start
            with self.open(received) as file:
                for chunk in response.chunks():
                    if not received:
                        check_content(chunk)
                    self.write(file, chunk)
                    received += len(chunk)
                    meter.add(len(chunk))
                    if meter.due():
                        self.progress(Progress(url, received, total, meter.rate))
                    if meter.full and meter.rate < min_rate:
                        raise SlowError(meter.rate)
                    if total is not None and received > total:
                        break  # the checksum will not match
        self.progress(Progress(url, received, total, meter.rate))
        if total is not None and received < total:
            raise ConnectionLostError(
                f"it closed the connection after {received:,} of {total:,} bytes"
            )

    @contextmanager
    def open(self, start: int) -> Iterator[BinaryIO]:
        """Open the part to append, or for byte 0 a second file that replaces it if as long."""
        try:
            with self.part.open("ab") if start else self.restarted.open("wb") as file:
                yield file
        finally:
            if not start and self.restarted.exists():
                if _size(self.restarted) >= _size(self.part):
                    self.restarted.replace(self.part)
                else:
                    self.restarted.unlink()

    def total_size(self, response: Response) -> int | None:
        """Return the size of the whole file, or raise if the mirror has another file."""
        expected = self.layout.size
        if expected is not None and response.total not in (None, expected):
            raise MirrorError(f"its file has {response.total:,} bytes instead of {expected:,}")
        return expected or response.total

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Write a chunk. If that fails, remove what was received."""
        try:
            file.write(chunk)
        except OSError as error:
            # do not leave a full disk behind
            file.close()
            self.part.unlink(missing_ok=True)
            self.restarted.unlink(missing_ok=True)
            raise self.cannot_store(cannot_write(self.part, error)) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
