"""What a run may go on with: its recipe, and its data or, if imported, what fits its network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.system.text import duration, minutes, resuming
from peewit.training.budget.rounds import not_reached
from peewit.training.build import fitted
from peewit.training.checkpoint import Position, read_position
from peewit.training.environment import check_threads, usable_threads
from peewit.training.loop import Job
from peewit.training.recipe import AUTO, FREE_TO_CHANGE, Recipe
from peewit.training.resolve import filled


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with the run ``path`` on other data, by ``describe_data`` of both.

    By content alone: the files may have been moved.

    Raises
    ------
    PeewitError
        The data is not the same.
    """
    if now["fingerprints"] != before["fingerprints"]:
        raise PeewitError(
            f"cannot go on with {path}",
            f"this is not the data that it was trained on ({before.get('origin')})",
            "give the same data, or train anew",
        )


def check_fits(
    path: Path,
    names: Sequence[str],
    rule: Preprocessing,
    job: Job,
    note: Callable[[str], None],
) -> None:
    """Refuse to train the imported run ``path`` on data that its network cannot take.

    Parameters
    ----------
    path : Path
    names : sequence of str
        The run's classes.
    rule : Preprocessing
        What the run's network reads.
    job : Job
        What the data would be trained by.
    note : callable
        Told that nobody knows what the network has seen.

    Raises
    ------
    PeewitError
        The classes are others, or the pictures would come in another size or other colours.
    """
    if tuple(job.training.class_names) != tuple(names):
        raise PeewitError(
            f"cannot go on with {path}",
            "the data has other classes, or the same in another order",
            "import the model again, with the names that the data has",
        )
    given = job.preprocessing
    if given != rule:
        wanted, found = (
            f"{part.height} x {part.width} x {part.channels}" for part in (rule, given)
        )
        raise PeewitError(
            f"cannot go on with {path}",
            f"its network reads pictures of {wanted}, and these would be given as {found}",
        )
    note(
        "nobody knows which images this network was trained on before: if the validation or test "
        "images were among them, their accuracy is too hopeful"
    )


def recipe_to_go_on(
    path: Path,
    before: Recipe,
    asked: Recipe | None,
    dataset: Dataset,
    checkpoint: Path,
    note: Callable[[str], None],
) -> Recipe:
    """Return the recipe to go on with in the run ``path``, what it leaves open included.

    Where epochs are counted, its threads are those that the run began with, for the same weights
    bit by bit. By time the weights differ anyhow: then no more than are of use here.

    Parameters
    ----------
    path : Path
    before : Recipe
        What it was trained by so far.
    asked : Recipe or None
        What is asked for, as it was given; None for the same.
    dataset : Dataset
        The training set.
    checkpoint : Path
        The file that says how far the training is, if it is there.
    note : callable
        Told where there are more threads than this machine has cores.

    Raises
    ------
    UsageError
        It would make other weights, or ends before where the training is, or the threads are far
        too many for this machine.
    """
    recipe = before if asked is None else _as_then(asked, before, dataset)
    old, new = before.to_dict(), recipe.to_dict()
    for name in old.keys() - FREE_TO_CHANGE:
        if new[name] != old[name]:
            raise UsageError(
                f"cannot go on with {path} and {name} {new[name]}",
                f"it was trained with {old[name]}",
                "leave it as it was, or train anew",
            )
    position = read_position(checkpoint) if checkpoint.is_file() else Position()
    if recipe.epochs is not None and recipe.epochs < position.begun:
        raise UsageError(
            f"cannot go on with {path} to the end of epoch {recipe.epochs}",
            f"epoch {position.begun} has already begun",
        )
    other_minutes = recipe.minutes if recipe.minutes != before.minutes else None
    if other_minutes is not None and 60 * other_minutes <= position.spent:
        raise UsageError(
            f"cannot go on with {path} to the end of {minutes(other_minutes)}",
            f"it has been trained for {duration(position.spent)} already, which count",
        )
    return recipe.replace(threads=_threads(before, asked.threads if asked else None, note))


def _as_then(recipe: Recipe, before: Recipe, dataset: Dataset) -> Recipe:
    """Return the recipe as the run that began with it has it, if it did."""
    if recipe.model == AUTO:
        recipe = recipe.replace(model=before.model)
    if not recipe.by_epochs:  # the planner has chosen it
        recipe = recipe.replace(precision=before.precision)
    # only where they differ, so that other data is refused as what it is and not by its size
    if (recipe.batch_size, recipe.validation_fraction) != (
        before.batch_size,
        before.validation_fraction,
    ):
        recipe = fitted(recipe, dataset, lambda sentence: None)
    return filled(recipe, before.to_dict())


def _threads(before: Recipe, asked: int | None, note: Callable[[str], None]) -> int:
    if asked is not None:
        check_threads(asked)
        return asked
    usable = usable_threads()
    threads = before.threads or usable
    if not before.by_epochs:
        return min(threads, usable)
    check_threads(threads, f"the run began with so many: give --threads {usable}")
    if threads > usable:
        note(
            f"going on with {threads} threads, as the run began, for weights that are the same bit "
            f"by bit: --threads {usable} is faster on this machine"
        )
    return threads


def check_checkpoint(path: Path, checkpoint: Path) -> None:
    """Refuse to begin anew, over the weights of the trained run ``path``, without its checkpoint.

    Raises
    ------
    PeewitError
        There is no such file.
    """
    if not checkpoint.is_file():
        raise PeewitError(
            f"cannot go on with {path}",
            f"its {checkpoint.name} is missing",
            "put it back, or train anew in another folder",
        )


def say_what_differs(
    before: Recipe, now: Recipe, other_length: bool, note: Callable[[str], None]
) -> None:
    """Tell in what the weights will not be those of a training that was never stopped."""
    if now.schedule == "linear" and other_length:
        note(
            "the learning rate follows the new length from here on, so the weights will "
            "differ from those of a training that was planned for it from the start"
        )
    if now.threads != before.threads:
        note(
            f"with {now.threads} threads instead of {before.threads} the weights "
            "will differ in their last bits from those of a training that was never stopped"
        )


def check_reached(path: Path, recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> None:
    """Raise PeewitError if the finished run did not come to the accuracy that it was asked for."""
    if recipe.until_accuracy is None or not history:
        return
    last = history[-1]["validation_accuracy"]
    if last < recipe.until_accuracy:
        why = f"{last:.1%} are, and the training was given up"
        spent = sum(row["seconds"] for row in history)
        raise not_reached(recipe.until_accuracy, why, ask_otherwise(path, spent))


def ask_otherwise(path: Path, spent: float) -> str:
    """Return what to do with a run that was given up after so many seconds, which count."""
    more = math.ceil(spent / 60) + 10
    return f"ask for less, or give it more minutes in all: {resuming(path)} --minutes {more}"
