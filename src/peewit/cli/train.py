"""``peewit train``: from a source to a tested Run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peewit.cli.options import (
    RecipeCommand,
    complete_recipe,
    complete_run,
    complete_source,
    data_options,
    examples,
    find_recipe,
    recipe_flags,
)

if TYPE_CHECKING:
    from peewit.data.sources import Splits
    from peewit.training.recipe import Recipe

# How long a training on pictures of one's own takes by default, and the options that say otherwise
MINUTES = 5.0
LENGTHS = {"epochs", "minutes", "until_accuracy"}


@click.command(
    cls=RecipeCommand,
    short_help="Train and test a classifier.",
    epilog=examples(
        "peewit train my-pictures",
        "peewit train cifar10 --epochs 20",
        "peewit train cifar10 --minutes 5",
        "peewit train cifar10 --data Downloads/cifar-10-python.tar.gz",
        "peewit train --resume runs/NAME",
    ),
)
@click.argument("source", required=False, shell_complete=complete_source)
@data_options
@click.option(
    "--recipe",
    metavar="NAME|FILE.yaml",
    help="Recipe to start from; the options below change it. [default: tutorial; for pictures of "
    "your own, auto; with --minutes or --until-accuracy: fast]",
    shell_complete=complete_recipe,
)
@click.option(
    "--group",
    metavar="COLUMN|REGEX",
    help="Keep groups of pictures, such as those of one person, on one side of every split: a "
    "column of the table, or a regular expression whose first group (or match) in the path of a "
    "picture names its group.",
)
@recipe_flags
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="New folder for the run. [default: runs/DATE-TIME-SOURCE-RECIPE]",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Resume an interrupted run, or train a finished one for more --epochs.",
    shell_complete=complete_run,
)
@click.option(
    "--fallback",
    metavar="SOURCE",
    help="Train on this source if SOURCE is unavailable (digits: with the recipe digits, unless "
    "--recipe is given).",
    shell_complete=complete_source,
)
@click.option(
    "--strict",
    is_flag=True,
    help="Stop at the first picture that cannot be read, instead of leaving it out.",
)
@click.option(
    "--tensorboard/--no-tensorboard",
    "logged",
    default=None,
    help="Write TensorBoard logs to the folder tensorboard of the run. A resumed run that has logs "
    "continues them.",
)
def train(
    source: str | None,
    data: str | None,
    coarse: bool,
    group: str | None,
    recipe: str | None,
    out: Path | None,
    resume: Path | None,
    fallback: str | None,
    strict: bool,
    logged: bool | None,
    **flags: Any,
) -> None:
    """Train a classifier on SOURCE: the path of a folder, table or archive of pictures, or a name.

    The names are cifar10, cifar100 and digits.
    The run folder gets the weights, the history, the test results, pictures and a report.
    """
    from peewit.cli.output import note, print_run
    from peewit.cli.usage import flags_named
    from peewit.data.sources import SOURCES
    from peewit.errors import PeewitError
    from peewit.report.tensorboard import TensorBoard, is_logged, summary_writer
    from peewit.runs.folder import CHECKPOINT
    from peewit.system.ranks import restarts
    from peewit.trainer import train as work
    from peewit.training.progress import automatic
    from peewit.training.recipe import PRESETS

    changes = {name: value for name, value in flags.items() if value is not None}
    place: dict[str, Any] = {"source": source, "data": data, "coarse": coarse}
    if group is not None:
        place["group"] = group
    if restarts() and resume is None and out is not None and (out / CHECKPOINT).is_file():
        # torchrun repeats the first command
        resume, source, recipe, out = out, None, None, None
        place = {"source": None, "data": data, "coarse": False}
    settings = None
    with flags_named(changes):
        if resume is not None:
            settings, place = _resumed(resume, place, recipe, out, changes)
        elif source is None:
            raise click.UsageError("SOURCE is missing: cifar10, cifar100, digits or a path")
        elif "backbone" in changes and "model" in changes:
            raise click.UsageError("--backbone and --model are both given: give one of them")
        elif recipe is not None or source in SOURCES or "backbone" in changes:
            settings = _settings(recipe, changes, pictures=False)
    continued = logged is None and resume is not None and is_logged(resume)
    logged = logged or continued
    if logged:
        # before the data is loaded, so that the error comes at once
        try:
            summary_writer()
        except PeewitError as error:
            if not continued:
                raise
            raise PeewitError(error.what, todo=f"{error.todo}, or add --no-tensorboard") from error
    asked = place
    splits, place = _load(place, fallback, strict)
    if place != asked and recipe is None and resume is None and fallback in PRESETS:
        # the default recipe is the tutorial's, and its network is made for larger images
        with flags_named(changes):
            settings = PRESETS[fallback].budgeted(**changes)
    for sentence in splits.notes:
        note(sentence)
    if settings is None:  # what a path contains is only known now
        pictures = splits.train.names is not None
        if pictures and not LENGTHS & changes.keys():
            changes["minutes"] = MINUTES
            note(f"training for {MINUTES:g} minutes (--minutes changes it)")
        with flags_named(changes):
            settings = _settings(None, changes, pictures)
    progress = automatic()
    callbacks = [TensorBoard(progress.on_note)] if logged else []
    with flags_named(changes):
        run = work(
            splits.train,
            settings,
            test=splits.test,
            out=out,
            source=place,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
            began=click.get_current_context().find_root().obj,
        )
    print_run(run)


def _settings(recipe: str | None, changes: dict[str, Any], pictures: bool) -> Recipe:
    """Return the recipe that was asked for, or else the default one, with changes."""
    from peewit.models.registry import MODELS, PRETRAINED, find

    on_time = "minutes" in changes or "until_accuracy" in changes
    default = "auto" if pictures else "fast" if on_time else "tutorial"
    if "backbone" in changes or (
        changes.get("model") in MODELS and find(changes["model"]).family == PRETRAINED
    ):
        default = "pretrained"
    return find_recipe(recipe or default).budgeted(**changes)


def _resumed(
    path: Path,
    place: dict[str, Any],
    recipe: str | None,
    out: Path | None,
    changes: dict[str, Any],
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe and the source of the resumed run ``path``."""
    from peewit.data.sources import moved
    from peewit.errors import PeewitError
    from peewit.runs.run import Run
    from peewit.system.text import command

    earlier, source = Run.open(path), place["source"]
    kept = {"recipe": recipe and "--recipe", "folder": out and "--out"}
    if earlier.source:  # imported runs may have none
        kept["source"] = source
        kept["classes"] = "--coarse" if place["coarse"] else None
        kept["groups"] = "--group" if "group" in place else None
    for what, typed in kept.items():
        if typed:
            raise click.UsageError(f"a resumed run keeps its {what}: omit {typed}")
    same = {name: getattr(earlier.recipe, name) for name in ("model", "validation_fraction")}
    settings = earlier.recipe.budgeted(**(same | {"threads": None} | changes))
    if earlier.source:
        place = moved(earlier.source, place["data"])
    elif not source:
        raise PeewitError(
            f"{path} does not record the source of its data",
            todo=f"name it: {command(['peewit', 'train', 'SOURCE', '--resume', path])}",
        )
    return settings, place


def _load(
    place: dict[str, Any], fallback: str | None, strict: bool
) -> tuple[Splits, dict[str, Any]]:
    """Load the source, or the fallback if it is unavailable; return which it was too."""
    from peewit.cli.output import download_shown, note
    from peewit.data.sources import SourceNotAvailable, load

    try:
        with download_shown() as progress:
            return load(**place, strict=strict, progress=progress), place
    except SourceNotAvailable as error:
        if fallback is None:
            raise
        note(f"{error}; using {fallback} instead")
    place = {"source": fallback, "data": None, "coarse": False}
    return load(**place), place
