"""Output of the commands: results on stdout; notes, failures and downloads on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from peewit.system.ranks import rank
from peewit.system.streams import reader_may_leave
from peewit.system.text import printable

if TYPE_CHECKING:
    from peewit.data.download.rate import Progress
    from peewit.data.packing.decoding import Progress as Decoding
    from peewit.data.sources import Splits
    from peewit.errors import PeewitError
    from peewit.runs.run import Run

SECONDS_PER_LINE = 10.0  # between two progress lines in a log
SECONDS_UNTIL_BAR = 2.0  # what is over sooner needs no progress bar


def note(sentence: str) -> None:
    """Print a note on stderr; of several processes, only the first prints it."""
    if rank() == 0:
        print(f"note: {printable(sentence)}", file=sys.stderr)


def complain(error: PeewitError) -> None:
    """Print a failure on stderr that does not end the command."""
    print(f"peewit: {printable(str(error))}", file=sys.stderr)


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return the first ``most`` names as part of a sentence.

    >>> shortened(["cat", "dog", "frog"], most=2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON in ASCII: ``\\u732b`` for a Chinese character.

    ASCII, because a console's code page (or PowerShell between two programs) converts other
    characters, and because the name of a file may not be valid Unicode. Bytes, because stdout may
    have an encoding that is no superset of ASCII. NaN and infinity, which JSON lacks, become null.
    """
    finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
    click.echo(json.dumps(finite, indent=2).encode("ascii"))


def print_run(run: Run) -> None:
    """Print the accuracy of a finished run and its folder, if there is somebody to read them.

    Pictures that could not be read are named again: the note of the start has scrolled away. Of
    several processes, only the first prints it.
    """
    if rank():
        return
    from peewit.report.sentences import images_tested, imbalanced_result, unreadable

    with reader_may_leave():
        if run.metrics:
            low, high = run.metrics["accuracy_interval"]
            click.echo(
                f"accuracy {run.metrics['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}) "
                f"on {images_tested(run.metrics)}"
            )
            if sentence := imbalanced_result(run.metrics):
                click.echo(sentence)
        click.echo(run.path)
    if sentence := unreadable(run):
        note(sentence)


@contextmanager
def decoding_shown() -> Iterator[Callable[[Decoding], None]]:
    """Yield a callback that shows the decoding of picture files, if it takes seconds."""
    from peewit.training.progress import automatic

    progress = automatic()
    try:
        yield progress.on_decoding
    finally:
        progress.close()


def sized_splits(run: Run, splits: Splits) -> Splits:
    """Return data with its pictures decoded at the input size of a run, and show the progress."""
    from peewit.data.packing import sized_for

    rule = run.preprocessing
    with decoding_shown() as show:
        test = None if splits.test is None else sized_for(splits.test, rule, note, show)
        return splits._replace(train=sized_for(splits.train, rule, note, show), test=test)


@contextmanager
def progress_shown(total: int, things: str, hidden: bool = False) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` things; it shows the progress on stderr.

    A bar in a terminal, or a line every ten seconds in a log; nothing in the first two seconds.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from peewit.system.terminal import console_err

    console, done = console_err(), 0
    began = time.monotonic()
    if hidden or not console.is_terminal:
        due = began + SECONDS_PER_LINE

        def line() -> None:
            nonlocal done, due
            done += 1
            now = time.monotonic()
            if not hidden and now >= due:
                due = now + SECONDS_PER_LINE
                console.print(f"{done:,} of {total:,} {things}, {done / (now - began):,.0f}/s")

        yield line
        return

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(things), TimeRemainingColumn())
    # stdout is for results: rich would redirect it to stderr
    bar = Bar(*columns, console=console, transient=True, redirect_stdout=False)
    task = bar.add_task("", total=total)

    def redraw() -> None:
        nonlocal done
        done += 1
        if not bar.live.is_started and time.monotonic() - began >= SECONDS_UNTIL_BAR:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield redraw
    finally:
        bar.stop()


@contextmanager
def download_shown() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that shows a download: a bar in a terminal, lines in a log.

    Nothing is shown before the first call.
    """
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    from peewit.system.terminal import console_err

    console = console_err()
    if not console.is_terminal:
        last = -SECONDS_PER_LINE

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_PER_LINE:
                last = time.monotonic()
                console.print(str(progress))

        yield line
        return

    bar = Bar(BarColumn(), TextColumn("{task.description}"), console=console, transient=True)

    def redraw(progress: Progress) -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task("")
        bar.update(
            bar.task_ids[0],
            description=str(progress),
            completed=progress.received,
            total=progress.total,
        )

    try:
        yield redraw
    finally:
        bar.stop()
