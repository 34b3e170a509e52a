"""``peewit report``: a run as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from peewit.cli.options import examples, run_argument
from peewit.cli.output import note


@click.command(
    short_help="Make a page of all that is known of a run.",
    epilog=examples("peewit report runs/NAME", "peewit report runs/NAME --out NAME.html"),
)
@run_argument
@click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="Where the run's data lies now, if it is not where it was.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="HTML",
    help="Where to write the page. [report.html in RUN]",
)
def report(folder: Path, data: str | None, out: Path | None) -> None:
    """Write one HTML file about RUN: result, curves, mistakes, heat maps, cost, how to redo it.

    It needs no network and no other file. The pictures come from the data that RUN was trained
    on; where that is gone, the page has those that the training left.
    """
    from peewit.cli.download import download_shown
    from peewit.errors import PeewitError
    from peewit.report import gather, write_report
    from peewit.runs.run import Run

    run = Run.open(folder)
    evidence, missing = None, ""
    if run.metrics:
        try:
            with download_shown() as progress:
                evidence, notes = gather(run, data, progress)
            for sentence in notes:
                note(sentence)
        except PeewitError as error:
            missing = str(error)
            note(f"{missing}; the report is made without the data")
    click.echo(write_report(run, evidence, missing=missing, out=out))
