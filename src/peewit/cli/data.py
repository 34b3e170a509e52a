"""The commands about data: ``peewit show`` and ``peewit data``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import click

from peewit.cli.audit import apply, check
from peewit.cli.cache import cache
from peewit.cli.options import Integer, complete_source, data_options, examples, parse_indices
from peewit.cli.output import download_shown, note
from peewit.cli.usage import Command, Group


@click.command(
    cls=Command,
    short_help="Show images of a data set, and count its classes.",
    epilog=examples("peewit show cifar10 --indices 100-103  # the images that the tutorial shows"),
)
@click.argument("source", shell_complete=complete_source)
@data_options
@click.option("--test", is_flag=True, help="Show the test set instead of the training set.")
@click.option(
    "--indices",
    metavar="NUMBERS",
    callback=parse_indices,
    help="Show the images with these numbers, counted from 0, such as 7 or 100-103 or 1,5,20-22.",
)
@click.option("--classes", metavar="NAME,NAME", help="Show only images of these classes.")
@click.option(
    "--count",
    type=Integer(),
    default=16,
    show_default=True,
    help="Number of images to draw at random.",
)
@click.option(
    "--seed", type=Integer(0), default=0, show_default=True, help="Random seed of the draw."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="File to write the picture to. [default: SOURCE.png]",
)
def show(
    source: str,
    data: str | None,
    coarse: bool,
    test: bool,
    indices: list[int] | None,
    classes: str | None,
    count: int,
    seed: int,
    out: Path | None,
) -> None:
    """Show images of SOURCE with their labels: in a PNG file, and in the terminal if it can.

    Prints the number of images of each class, and the mean and standard deviation of each channel
    (on a scale from 0 to 1).
    """
    from peewit.data.gallery import choose, describe, titles
    from peewit.data.sources import load
    from peewit.errors import UsageError
    from peewit.plots import advice, save_grid
    from peewit.system.terminal import console_out, show_pictures

    with download_shown() as progress:
        splits = load(source, data=data, coarse=coarse, progress=progress)
    for sentence in splits.notes:
        note(sentence)
    dataset = splits.test if test else splits.train
    if dataset is None:
        raise UsageError(f"{source} has no test set", todo="leave out --test")
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    chosen = choose(dataset, indices=indices, classes=names, count=count, seed=seed)
    out = out or Path(f"{_name(source)}.png")
    save_grid(out, dataset, chosen)
    if missing := advice(dataset.class_names):
        note(missing)
    show_pictures([dataset.images[i] for i in chosen], titles(dataset, chosen), console_out())
    click.echo(describe(dataset))
    click.echo(f"\n{out}")


def _name(source: str) -> str:
    """Return the name of the source, or of its file or folder without suffixes.

    >>> _name("cifar10"), _name("old/cifar-10-python.tar.gz"), _name("/data/.hidden.tar")
    ('cifar10', 'cifar-10-python', 'hidden')
    """
    # resolved, because the folder may be given as "."
    return Path(source).resolve().name.lstrip(".").split(".")[0] or "pictures"


name_argument = click.argument("name", shell_complete=complete_source)
place_option = click.option(
    "--data", "place", type=click.Path(), metavar="PATH", help="Look only at this path."
)


@click.group(cls=Group, invoke_without_command=True, epilog=examples("peewit data where cifar10"))
@click.pass_context
def data(context: click.Context) -> None:
    """Find, download or verify a data set known by name."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


data.add_command(cache)
data.add_command(check)
data.add_command(apply)


@data.command(epilog=examples("peewit data where cifar10"))
@name_argument
@place_option
def where(name: str, place: str | None) -> None:
    """List the places searched for NAME, in order; the first one that has it is used."""
    from peewit.data.sources import where
    from peewit.system.terminal import text_table

    places = where(name, place)
    rows = []
    for owner, spots in groupby(places, key=lambda spot: spot.owner):
        listed = list(spots)
        found = [["found", owner, str(spot.path)] for spot in listed if spot.found]
        # the data may have many names in a folder: list the folder, not each of them
        rows += found or [["-", owner, str(listed[0].path.parent if place is None else place)]]
    click.echo(text_table([], rows, "lll"))
    if not any(spot.found for spot in places):
        note(
            f"{name} is in none of these places: it will be downloaded when needed"
            if place is None
            else f"{name} is not at {place}; check the path"
        )


@data.command(epilog=examples("peewit data fetch cifar10"))
@name_argument
def fetch(name: str) -> None:
    """Download NAME if it is not on this machine yet, and print its path."""
    from peewit.data.sources import fetch

    with download_shown() as progress:
        fetched = fetch(name, progress=progress)
    for sentence in fetched.notes:
        note(sentence)
    click.echo(fetched.path)


@data.command(epilog=examples("peewit data verify cifar10 --data Downloads/cifar-10-python.tar.gz"))
@name_argument
@place_option
def verify(name: str, place: str | None) -> None:
    """Check that NAME is complete, and whether it is identical to the published data."""
    from peewit.data.cifar.verify import verify

    click.echo(verify(name, place))


@data.command(
    short_help="Write a source as tar shards.",
    epilog=examples("peewit data shard my-pictures shards"),
)
@click.argument("source", shell_complete=complete_source)
@click.argument("out", type=click.Path(path_type=Path))
@data_options
@click.option(
    "--size",
    type=Integer(1),
    default=256,
    show_default=True,
    metavar="MB",
    help="The most megabytes in a shard.",
)
def shard(source: str, out: Path, data: str | None, coarse: bool, size: int) -> None:
    """Write the pictures of SOURCE to tar archives in the new folder OUT, in WebDataset's layout.

    They are shuffled, so that each archive is a sample of the whole. OUT is a source for all
    commands, and other programs for WebDataset can read it.
    """
    from peewit.cli.output import progress_shown
    from peewit.data.shards import write_shards
    from peewit.data.sources import load

    with download_shown() as progress:
        splits = load(source, data=data, coarse=coarse, progress=progress)
    for sentence in splits.notes:
        note(sentence)
    count = len(splits.train) + (0 if splits.test is None else len(splits.test))
    with progress_shown(count, "pictures") as advance:
        written = write_shards(splits, out, size * 10**6, advance)
    click.echo(f"{written.pictures:,} pictures in {written.shards:,} shards: {out}")
