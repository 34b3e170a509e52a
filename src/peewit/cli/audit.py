"""``peewit data check`` and ``peewit data apply``: find errors in pictures, and correct them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peewit.cli.options import complete_run, examples
from peewit.cli.output import decoding_shown, note, print_json
from peewit.cli.usage import Command

if TYPE_CHECKING:
    from peewit.data.audit import Audit
    from peewit.data.audit.check import Predictions
    from peewit.data.listing import Listing

PAGE, FINDINGS, CLASSES = "check.html", "findings.csv", "classes.csv"


@click.command(
    cls=Command,
    short_help="Find errors in a data set of pictures.",
    epilog=examples(
        "peewit data check my-pictures",
        "peewit data check my-pictures --out check --fix-list plan.csv",
    ),
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder for a page with the pictures ({PAGE}) and tables ({FINDINGS}, {CLASSES}).",
)
@click.option(
    "--run",
    "run_path",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Also find labels that the test of this run makes suspicious.",
    shell_complete=complete_run,
)
@click.option(
    "--fix-list",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="File for a plan of corrections, to be edited and then applied with peewit data apply.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if anything was found.")
def check(
    source: Path,
    out: Path | None,
    run_path: Path | None,
    fix_list: Path | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Look for errors in SOURCE: a folder, table or archive of pictures.

    Finds unreadable, misnamed, identical, similar, tiny, dark, constant and blurred pictures, and
    outliers; above all copies that are in two parts of the data or have two labels. Nothing is
    changed.
    """
    from peewit.data.audit import check as work
    from peewit.data.audit.plan import write_plan

    listing = _listing(source)
    for sentence in listing.notes:
        note(sentence)
    with decoding_shown() as show:
        predictions = None if run_path is None else _predictions(run_path)
        audit = work(listing, predictions=predictions, show=show, note=note)
    if out is not None:
        _write(audit, out)
    if fix_list is not None:
        write_plan(audit, fix_list)
    if as_json:
        print_json(audit.to_dict())
    else:
        _print(audit)
        if out is not None:
            click.echo(out / PAGE)
    if strict and audit.findings:
        raise click.exceptions.Exit(1)


@click.command(
    cls=Command,
    short_help="Carry out a plan of corrections into a new folder.",
    epilog=examples("peewit data apply plan.csv my-pictures corrected"),
)
@click.argument("plan", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def apply(plan: Path, source: Path, out: Path) -> None:
    """Copy the pictures of SOURCE into the new folder OUT, corrected by PLAN.

    PLAN is a CSV file by peewit data check --fix-list, with an action for each file: keep, remove,
    relabel CLASS or rename NAME. OUT has a folder for each class, inside of one for each part.
    SOURCE is not changed.
    """
    from peewit.data.audit.plan import apply_plan, read_plan

    listing = _listing(source)
    changes = read_plan(plan, listing)
    written = apply_plan(changes, listing, out)
    click.echo(
        f"{written:,} pictures in {out}: {len(listing) - written:,} removed, "
        f"{len(changes.labels):,} relabelled, {len(changes.names):,} renamed"
    )


def _listing(source: Path) -> Listing:
    from peewit.data import listing_of
    from peewit.errors import PeewitError

    listing = listing_of(source)
    if listing is None:
        raise PeewitError(
            f"cannot check {source}",
            "it is not a folder, table or archive of picture files",
            "name one",
        )
    return listing


def _predictions(path: Path) -> Predictions:
    """Return what a run predicted for the pictures that it was tested on."""
    from peewit.errors import PeewitError
    from peewit.runs import folder
    from peewit.system.files import read_limited

    file = path / folder.PREDICTIONS
    if not file.is_file():
        raise PeewitError(
            f"{path} has no {folder.PREDICTIONS}", todo="name a run that was tested on pictures"
        )
    rows = csv.DictReader(read_limited(file, folder.MOST_HISTORY).decode("utf-8").splitlines())
    try:
        return {
            row["file"].removeprefix("./"): (row["predicted"], float(row["confidence"]))
            for row in rows
        }
    except (KeyError, TypeError, ValueError) as error:
        raise PeewitError(f"cannot read {file}", "it is damaged", "evaluate the run") from error


def _write(audit: Audit, out: Path) -> None:
    from peewit.data.audit.plan import write_plan
    from peewit.errors import PeewitError, reason_of
    from peewit.report.write import write_audit
    from peewit.system.tables import text_cell, write_csv

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PeewitError(f"cannot write {out}", reason_of(error)) from error
    write_plan(audit, out / FINDINGS)
    counts = audit.class_counts()
    parts = sorted({part for one in counts.values() for part in one})
    rows = [[text_cell(name), *map(one.get, parts)] for name, one in counts.items()]
    write_csv(out / CLASSES, ["class", *parts], rows)
    write_audit(audit, out / PAGE)


def _print(audit: Audit) -> None:
    from peewit.data.audit import KINDS
    from peewit.report.audit_page import IMBALANCED
    from peewit.system.terminal import text_table

    listing = audit.listing
    formats = ", ".join(f"{count:,} {name}" for name, count in audit.formats.most_common())
    click.echo(f"{len(listing):,} pictures in {len(listing.class_names):,} classes: {formats}")
    if audit.imbalance >= IMBALANCED:
        times = f"{audit.imbalance:.1f} times as many"
        click.echo(f"the largest class has {times} pictures as the smallest")
    if not audit.findings:
        click.echo("nothing was found")
        return
    rows = [
        [kind, f"{count:,}", str(listing.names[audit.of(kind)[0].row]), KINDS[kind]]
        for kind, count in audit.counts.items()
    ]
    click.echo(text_table(["finding", "pictures", "for example", "meaning"], rows, "lrll"))
