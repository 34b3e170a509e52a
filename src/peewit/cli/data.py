"""The commands about data: ``peewit show`` and ``peewit data``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import click

from peewit.cli.group import Group
from peewit.cli.options import complete_source, data_options, examples, parse_indices
from peewit.cli.output import note


@click.command(
    short_help="Show pictures of a data set, and count its classes.",
    epilog=examples(
        "peewit show cifar10 --indices 100-103  # the pictures that the tutorial shows"
    ),
)
@click.argument("source", shell_complete=complete_source)
@data_options
@click.option("--test", is_flag=True, help="Show the test set instead of the training set.")
@click.option(
    "--indices",
    metavar="NUMBERS",
    callback=parse_indices,
    help="Pictures by number, from 0: 7 or 100-103 or 1,5,20-22.",
)
@click.option("--classes", metavar="NAME,NAME", help="Only pictures of these classes.")
@click.option(
    "--count", type=int, default=16, show_default=True, help="How many to draw at random."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which ones are drawn.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Where to write the picture. [SOURCE.png]",
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
    """Show labelled pictures of SOURCE: as a PNG, and in a terminal that can.

    Prints how many pictures each class has, and the mean and deviation of each channel (0 to 1).
    """
    from peewit.cli.download import download_shown
    from peewit.cli.usage import flags_named
    from peewit.data.sources import load
    from peewit.errors import UsageError
    from peewit.images.gallery import choose, describe, titles
    from peewit.plots import save_grid
    from peewit.system.terminal import console_out, show_pictures

    with download_shown() as progress:
        splits = load(source, data=data, coarse=coarse, progress=progress)
    for sentence in splits.notes:
        note(sentence)
    dataset = splits.test if test else splits.train
    if dataset is None:
        raise UsageError(f"{source} has no test set", todo="leave out --test")
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    with flags_named(["seed"]):
        chosen = choose(dataset, indices=indices, classes=names, count=count, seed=seed)
    out = out or Path(f"{_name(source)}.png")
    save_grid(out, dataset, chosen)
    show_pictures([dataset.images[i] for i in chosen], titles(dataset, chosen), console_out())
    click.echo(describe(dataset))
    click.echo(f"\n{out}")


def _name(source: str) -> str:
    """Return the source's name or, of a path, that of the file or folder without endings.

    >>> _name("cifar10"), _name("old/cifar-10-python.tar.gz"), _name("/data/.hidden.tar")
    ('cifar10', 'cifar-10-python', 'hidden')
    """
    # in full: a folder may be given as "."
    return Path(source).resolve().name.lstrip(".").split(".")[0] or "pictures"


name_argument = click.argument("name", shell_complete=complete_source)
where_option = click.option(
    "--data", "place", type=click.Path(), metavar="PATH", help="Look here and nowhere else."
)


@click.group(cls=Group, invoke_without_command=True, epilog=examples("peewit data where cifar10"))
@click.pass_context
def data(context: click.Context) -> None:
    """Find, download or check a data set that is known by name."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@data.command(epilog=examples("peewit data where cifar10"))
@name_argument
@where_option
def where(name: str, place: str | None) -> None:
    """List the places where NAME is looked for, in order; the first one found is used."""
    from peewit.data.sources import where
    from peewit.system.terminal import text_table

    places = where(name, place)
    rows = []
    for owner, spots in groupby(places, key=lambda spot: spot.owner):
        listed = list(spots)
        found = [["found", owner, str(spot.path)] for spot in listed if spot.found]
        # a folder has many names under which the data may lie in it: too many to list
        rows += found or [["-", owner, str(listed[0].path.parent if place is None else place)]]
    click.echo(text_table([], rows, "lll"))
    if not any(spot.found for spot in places):
        note(
            f"{name} is in none of these places: it will be downloaded when it is needed"
            if place is None
            else f"nothing lies at {place}: check the path"
        )


@data.command(epilog=examples("peewit data fetch cifar10"))
@name_argument
def fetch(name: str) -> None:
    """Download NAME unless it is there, and print where it is."""
    from peewit.cli.download import download_shown
    from peewit.data.sources import fetch

    with download_shown() as progress:
        fetched = fetch(name, progress=progress)
    for sentence in fetched.notes:
        note(sentence)
    click.echo(fetched.path)


@data.command(epilog=examples("peewit data verify cifar10 --data Downloads/cifar-10-python.tar.gz"))
@name_argument
@where_option
def verify(name: str, place: str | None) -> None:
    """Check that NAME is whole, and whether it is as published."""
    from peewit.data.cifar.verify import verify

    click.echo(verify(name, place))
