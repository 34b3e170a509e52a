"""Get a file from whichever mirror gives it, whole or not at all.

Bytes go to a ``.part`` file beside the target, which the next attempt continues, on the same mirror
or on another (they serve the same bytes, or the checksum says so). A mirror that begins anew writes
to a second file, which takes the first one's place once it has more. A mirror that is slow is left
for the next; when all are slow, the fastest is used after all.
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
    Answer,
    CutError,
    MirrorError,
    NothingLeftError,
    SlowError,
    check_content,
)
from peewit.data.download.rate import Meter, Progress, host
from peewit.data.places import SourceNotAvailable
from peewit.errors import PeewitError
from peewit.system.files import cannot_write

# Seconds between two looks at how far another process is.
PAUSE = 0.5


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When a mirror is given up."""

    rate: float = 200_000.0
    """Bytes a second under which a mirror is slow ..."""
    window: float = 20.0
    """... when it stays under it for so many seconds."""
    stall: float = 20.0
    """Seconds without any byte, or without an answer."""
    cuts: int = 3
    """Cuts in a row, on one mirror, that are resumed there."""


class Fetched(NamedTuple):
    """A file that is there now."""

    path: Path
    downloaded: bool
    """False where it was there already."""
    notes: tuple[str, ...] = ()
    """What went wrong on the way, a sentence a mirror."""


def fetch_archive(
    name: str,
    folder: Path,
    *,
    mirrors: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Download the published archive of a source, unless it is there.

    Two processes may do this at once: the second waits for the first and takes what it got, and
    ``progress`` is told meanwhile how far the other one is.

    Parameters
    ----------
    name : str
        ``cifar10`` or ``cifar100``.
    folder : Path
        Where the archive goes; made if needed.
    mirrors : sequence of str, optional
        URLs to try, in order; without it the known ones.
    progress : callable, optional
        Called a few times a second with a `Progress`.
    patience : Patience, optional
        When a mirror is given up.

    Returns
    -------
    Fetched
        The archive, with the published checksum.

    Raises
    ------
    SourceNotAvailable
        No mirror gave it, or the folder cannot be written to, or the disk is full; says which
        failed and why, and how to get it by hand.
    """
    layout = find_layout(name)
    target = folder / layout.archive
    job = _Job(layout, target, progress or _silent, patience or Patience())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with job.alone():
            if target.is_file() and _sound(target, layout):
                return Fetched(target, downloaded=False)
            return Fetched(target, True, tuple(job.run(mirrors or layouts.MIRRORS[name])))
    except OSError as error:
        raise job.no_place(cannot_write(target, error)) from error


def _silent(_: Progress) -> None:
    pass


def _sound(path: Path, layout: Layout) -> bool:
    algorithm, expected = layout.checksum
    return file_checksum(path, algorithm) == expected


class _Job:
    """One archive, from any of several mirrors."""

    def __init__(
        self,
        layout: Layout,
        target: Path,
        progress: Callable[[Progress], None],
        patience: Patience,
    ) -> None:
        self.layout, self.target = layout, target
        self.part = target.with_name(f"{target.name}.part")
        self.anew = target.with_name(f"{target.name}.anew.part")
        self.progress, self.patience = progress, patience

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process gets the archive, showing how far it is."""
        import filelock

        lock = filelock.FileLock(self.target.with_name(f".{self.target.name}.lock"))
        meter, before = Meter(self.patience.window), 0
        while True:
            try:
                lock.acquire(timeout=PAUSE)
                break
            except filelock.Timeout:
                received = max(_size(self.part), _size(self.anew))
                # what came before the first look is no sign of how fast it comes
                meter.add(max(0, received - before) if before else 0)
                before = received
                total = self.layout.size
                self.progress(Progress("another process", received, total, meter.rate))
        try:
            yield
        finally:
            lock.release()

    def run(self, mirrors: Sequence[str]) -> list[str]:
        """Try the mirrors until one has given the file; return what failed before."""
        self.check_room()
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
        # better slow than not at all, the fastest first
        for _, url in sorted(slow, reverse=True):
            try:
                self.from_mirror(url, 0.0)
                return failures
            except MirrorError as error:
                failures.append(f"{host(url)}, once more: {error}")
        raise self.unavailable(failures)

    def unavailable(self, failures: list[str]) -> SourceNotAvailable:
        why = ", ".join(failures) or "no mirror is known"
        by_hand = f"get {self._file()} in another way and put it in {self.target.parent}"
        return SourceNotAvailable(
            f"cannot download {self.layout.title}", why, f"{by_hand}, or give its path with --data"
        )

    def no_place(self, error: PeewitError) -> SourceNotAvailable:
        """Return the error of a folder that cannot hold it, which another way to it does not."""
        advice = [error.todo] if error.todo else []
        by_hand = f"get {self._file()} in another way and give its path with --data"
        return SourceNotAvailable(error.what, error.why, ", or ".join([*advice, by_hand]))

    def _file(self) -> str:
        algorithm, digits = self.layout.checksum
        size = f"{self.layout.size:,} bytes, " if self.layout.size else ""
        return f"{self.layout.archive} ({size}{algorithm} {digits})"

    def check_room(self) -> None:
        """Say so before the download, not after, where the disk cannot hold it."""
        needed = (self.layout.size or 0) - _size(self.part)
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise self.no_place(
                PeewitError(
                    f"cannot download {self.layout.archive} to {self.target.parent}",
                    f"it needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
                    "make room on the disk, or set PEEWIT_HOME to another folder",
                )
            )

    def from_mirror(self, url: str, least_rate: float) -> None:
        """Get the whole file from one mirror, resuming after cuts, and put it in place."""
        cuts, meter = 0, Meter(self.patience.window)
        while True:
            before = _size(self.part)
            try:
                self.transfer(url, least_rate, meter)
            except CutError:
                # one that brings a megabyte each time is worth staying with
                cuts = 0 if _size(self.part) > before + 1_000_000 else cuts + 1
                if cuts > self.patience.cuts:
                    raise
                continue
            except NothingLeftError:
                pass  # the checksum tells whether what is here is the file
            if _sound(self.part, self.layout):
                self.put_in_place()
                return
            self.part.unlink()
            # what came before may have been at fault: one honest try from the start
            if not before:
                raise MirrorError("what it served has another checksum than the published one")

    def put_in_place(self) -> None:
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        if self.target.exists():
            # not what was published, but perhaps dear to somebody
            self.target.replace(self.target.with_name(f"{self.target.name}.replaced"))
        self.part.replace(self.target)

    def transfer(self, url: str, least_rate: float, meter: Meter) -> None:
        """Do one request, from where the part ends to the end of the file."""
        with Answer(url, _size(self.part), self.patience.stall) as answer:
            total = self.agree(answer)
            received = answer.start
            with self.open(received) as file:
                for chunk in answer.chunks():
                    if not received:
                        check_content(chunk)
                    self.write(file, chunk)
                    received += len(chunk)
                    meter.add(len(chunk))
                    if meter.due():
                        self.progress(Progress(url, received, total, meter.rate))
                    if meter.full and meter.rate < least_rate:
                        raise SlowError(meter.rate)
                    if total is not None and received > total:
                        break  # the checksum will say what it thinks of that
        self.progress(Progress(url, received, total, meter.rate))
        if total is not None and received < total:
            raise CutError(f"it cut the connection after {received:,} of {total:,} bytes")

    @contextmanager
    def open(self, start: int) -> Iterator[BinaryIO]:
        """Open the part to go on with it, or from byte 0 on a file that replaces it if longer."""
        try:
            with self.part.open("ab") if start else self.anew.open("wb") as file:
                yield file
        finally:
            if not start and self.anew.exists():
                if _size(self.anew) >= _size(self.part):
                    self.anew.replace(self.part)
                else:
                    self.anew.unlink()

    def agree(self, answer: Answer) -> int | None:
        """Return the size of the whole file, unless the mirror offers another file."""
        expected = self.layout.size
        if expected is not None and answer.total not in (None, expected):
            raise MirrorError(f"it offers {answer.total:,} bytes instead of {expected:,}")
        return expected or answer.total

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            # a full disk must not stay full because of us
            file.close()
            self.part.unlink(missing_ok=True)
            self.anew.unlink(missing_ok=True)
            raise self.no_place(cannot_write(self.part, error)) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
