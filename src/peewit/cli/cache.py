"""The commands ``peewit data cache``: list and remove decoded images and features."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from peewit.cli.options import Number, examples
from peewit.cli.output import note, print_json
from peewit.cli.usage import Command, Group


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog=examples("peewit data cache list", "peewit data cache clean --older-than 30"),
)
@click.pass_context
def cache(context: click.Context) -> None:
    """List or remove the decoded images and the features that Peewit keeps to start faster.

    Their folder is in PEEWIT_HOME, or in your cache folder. Decoded pictures take at most
    PEEWIT_CACHE_GB gigabytes (default: 10, or half of what is free); those that have not been used
    for longest are removed first.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cache.command("list", cls=Command, epilog=examples("peewit data cache list --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_(as_json: bool) -> None:
    """List the cached data sets with their size on disk, the most recently used first."""
    from peewit.data.caches import entries, folder_of_pictures
    from peewit.system.terminal import text_table

    found = entries()
    if as_json:
        print_json(
            [
                {
                    **asdict(one),
                    "path": str(one.path),
                    "used": _date(one.used).isoformat(timespec="seconds"),
                }
                for one in found
            ]
        )
        return
    if not found:
        note(f"there is nothing in {folder_of_pictures().parent}")
        return
    rows = [
        [
            f"{one.bytes / 1e6:,.1f} MB",
            f"{one.pictures:,}" if one.pictures else "",
            one.size,
            f"{_date(one.used):%Y-%m-%d %H:%M}",
            one.source if one.state == "complete" else f"({one.state})",
        ]
        for one in found
    ]
    rows.append([f"{sum(one.bytes for one in found) / 1e6:,.1f} MB", "", "", "", "in all"])
    click.echo(text_table(["on disk", "pictures", "decoded to", "last used", "of"], rows, "rrlll"))


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()


@cache.command(cls=Command, epilog=examples("peewit data cache clean --all"))
@click.option(
    "--older-than",
    type=Number(),
    metavar="DAYS",
    help="Also remove data sets that have not been used for this many days.",
)
@click.option("--all", "everything", is_flag=True, help="Remove all of them.")
def clean(older_than: float | None, everything: bool) -> None:
    """Remove cached data sets that are damaged, unfinished, or whose source no longer exists.

    They are decoded again when they are needed. Features of pictures by pretrained networks, which
    do not belong to one source, are removed by --older-than and --all.
    """
    from peewit.data.caches import clean as remove

    if everything and older_than is not None:
        raise click.UsageError("--all and --older-than are both given: give one of them")
    if older_than is not None and not older_than >= 0:  # also for NaN
        raise click.UsageError(f"--older-than is {older_than:g}: it must be at least 0")
    removed = remove(older_than=older_than, everything=everything)
    total = sum(one.bytes for one in removed)
    noun = "data set" if len(removed) == 1 else "data sets"
    click.echo(f"removed {len(removed)} cached {noun}, {total / 1e6:,.1f} MB")
