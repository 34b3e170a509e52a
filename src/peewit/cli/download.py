"""How a download is shown: a bar in a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from peewit.system.terminal import console_err

if TYPE_CHECKING:
    from peewit.data.download.rate import Progress

# between the lines of a log
SECONDS_A_LINE = 10.0


@contextmanager
def download_shown() -> Iterator[Callable[[Progress], None]]:
    """Give the function to call as a download goes on; it shows nothing before it is called."""
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = console_err()
    if not console.is_terminal:
        last = -SECONDS_A_LINE

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_A_LINE:
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
