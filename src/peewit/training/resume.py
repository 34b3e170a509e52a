"""Resume a run: which recipe and which data it may continue with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError, UsageError
from peewit.images.preprocessing import Preprocessing
from peewit.system.files import damaged
from peewit.system.text import duration, minutes, resuming
from peewit.training.budget.rounds import not_reached
from peewit.training.checkpoint import read_state
from peewit.training.defaults import with_open_fields
from peewit.training.environment import check_threads, usable_threads
from peewit.training.loop import TrainSetup
from peewit.training.recipe import AUTO, FREE_TO_CHANGE, Recipe
from peewit.training.resolve import for_small_data
from peewit.training.state import TrainState


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume the run ``path`` on other data, by ``describe_data`` of both.

    Only the content counts: the files may have been moved.

    Raises
    ------
    PeewitError
        The data has changed.
    """
    if now["fingerprints"] != before["fingerprints"]:
        counts = ""
        if "images" in before and now["images"] != before["images"]:
            old, new = (sum(part["images"].values()) for part in (before, now))
            counts = f", which had {old:,} images; there are {new:,} now"
        raise PeewitError(
            f"cannot resume {path}",
            f"this is not the data that it was trained on ({before.get('origin')}){counts}",
            "use the same data, or start a new run",
        )


def check_fits(
    path: Path,
    names: Sequence[str],
    rule: Preprocessing,
    setup: TrainSetup,
    note: Callable[[str], None],
) -> None:
    """Refuse to train the imported run ``path`` on data that does not fit its network.

    Parameters
    ----------
    path : Path
    names : sequence of str
        The run's classes.
    rule : Preprocessing
        The preprocessing of the run's network.
    setup : TrainSetup
        The training that the data would lead to.
    note : callable
        Called with the warning that the network's earlier training data is unknown.

    Raises
    ------
    PeewitError
        The classes differ, or the preprocessing does.
    """
    if tuple(setup.training.class_names) != tuple(names):
        raise PeewitError(
            f"cannot resume {path}",
            "the data has other classes, or the same classes in another order",
            "import the model again with the class names of the data",
        )
    given = setup.preprocessing
    if given != rule:
        wanted, found = (
            f"{part.height} x {part.width} x {part.channels}" for part in (rule, given)
        )
        raise PeewitError(
            f"cannot resume {path}",
            f"its network takes images of {wanted}, and these would be {found}",
        )
    note(
        "it is unknown which images this network was trained on before: if validation or test "
        "images were among them, their accuracy is biased upwards"
    )


def recipe_to_resume(
    path: Path,
    before: Recipe,
    asked: Recipe | None,
    dataset: Dataset,
    checkpoint: Path,
    note: Callable[[str], None],
) -> Recipe:
    """Return the resolved recipe with which the run ``path`` continues.

    A recipe that counts epochs keeps the run's number of threads, for bit-identical weights. With a
    time budget the weights differ anyway, so no more threads are used than this machine has cores.

    Parameters
    ----------
    path : Path
    before : Recipe
        The run's recipe.
    asked : Recipe or None
        The requested recipe, unresolved; None for the same.
    dataset : Dataset
        The training set.
    checkpoint : Path
        The checkpoint file, which need not exist.
    note : callable
        Called with a sentence if the run has more threads than this machine has cores.

    Raises
    ------
    UsageError
        The requested recipe changes a setting that decides the weights, ends before the point that
        training has reached, or has far too many threads for this machine.
    """
    recipe = before if asked is None else _as_then(asked, before, dataset)
    old, new = before.to_dict(), recipe.to_dict()
    for name in old.keys() - FREE_TO_CHANGE:
        if new[name] != old[name]:
            raise UsageError(
                f"cannot resume {path} with {name} {new[name]}",
                f"it was trained with {old[name]}",
                "keep the value, or start a new run",
            )
    state = read_state(checkpoint) if checkpoint.is_file() else TrainState()
    if recipe.epochs is not None and recipe.epochs < state.epochs_begun:
        raise UsageError(
            f"cannot resume {path} with epochs {recipe.epochs}",
            f"training is already in epoch {state.epochs_begun}",
        )
    other_minutes = recipe.minutes if recipe.minutes != before.minutes else None
    if other_minutes is not None and 60 * other_minutes <= state.spent:
        raise UsageError(
            f"cannot resume {path} with a budget of {minutes(other_minutes)}",
            f"{duration(state.spent)} have already been used",
        )
    return recipe.replace(threads=_threads(before, asked.threads if asked else None, note))


def _as_then(recipe: Recipe, before: Recipe, dataset: Dataset) -> Recipe:
    """Return the requested recipe, resolved as it was at the start of the run."""
    if recipe.model == AUTO:
        recipe = recipe.replace(model=before.model)
    if recipe.folds is None:
        recipe = recipe.replace(folds=before.folds)
    if recipe.fit == AUTO:
        recipe = recipe.replace(fit=before.fit)
    if not recipe.by_epochs:  # the planner has chosen it
        recipe = recipe.replace(precision=before.precision)
    # only if they differ, so that other data is refused because of its content, not its size
    if (recipe.batch_size, recipe.validation_fraction) != (
        before.batch_size,
        before.validation_fraction,
    ):
        recipe = for_small_data(recipe, dataset, lambda sentence: None)
    return with_open_fields(recipe, before.to_dict())


def _threads(before: Recipe, asked: int | None, note: Callable[[str], None]) -> int:
    if asked is not None:
        check_threads(asked)
        return asked
    usable = usable_threads()
    threads = before.threads or usable
    if not before.by_epochs:
        return min(threads, usable)
    check_threads(threads, f"the run was started with that many; use --threads {usable}")
    if threads > usable:
        note(
            f"resuming with the run's {threads} threads for bit-identical weights; --threads "
            f"{usable} is faster on this machine"
        )
    return threads


def check_checkpoint(path: Path, checkpoint: Path) -> None:
    """Refuse to resume the trained run ``path`` without its checkpoint, which would restart it.

    Raises
    ------
    PeewitError
        The file is missing.
    """
    if not checkpoint.is_file():
        raise PeewitError(
            f"cannot resume {path}",
            f"its {checkpoint.name} is missing",
            "restore it, or start a new run in another folder",
        )


def check_progress(checkpoint: Path, state: TrainState, setup: TrainSetup) -> None:
    """Refuse a state that the training cannot have had: it would only fail at its end.

    Raises
    ------
    PeewitError
        The steps or the history do not belong to this training.
    """
    epochs = [row["epoch"] for row in state.history]
    possible = state.step <= setup.steps_per_epoch and epochs == sorted(epochs)
    if epochs:
        possible = possible and epochs[-1] <= state.epochs_begun
    if setup.recipe.by_epochs and setup.recipe.schedule == "constant":
        # one row per epoch
        possible = possible and len(epochs) == state.epoch
    if not possible:
        raise damaged(checkpoint, "its epochs, steps and history contradict each other")


def note_differences(
    before: Recipe, now: Recipe, other_length: bool, note: Callable[[str], None]
) -> None:
    """Note how the weights will differ from those of an uninterrupted run."""
    if now.schedule == "linear" and other_length:
        note(
            "from here on the learning rate follows the new length, so the weights will differ "
            "from those of a run of this length"
        )
    if now.threads != before.threads:
        note(
            f"with {now.threads} threads instead of {before.threads} the weights will differ in "
            "their last bits from those of an uninterrupted run"
        )


def check_reached(path: Path, recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> None:
    """Raise PeewitError if the finished run did not reach the requested accuracy."""
    if recipe.until_accuracy is None or not history:
        return
    last = history[-1]["validation_accuracy"]
    if last < recipe.until_accuracy:
        why = f"training stopped at {last:.1%}"
        spent = sum(row["seconds"] for row in history)
        raise not_reached(recipe.until_accuracy, why, advice_when_given_up(path, spent))


def advice_when_given_up(path: Path, spent: float) -> str:
    """Return the advice for a run that gave up after ``spent`` seconds of training."""
    more = math.ceil(spent / 60) + 10
    return f"lower the target, or raise the total budget: {resuming(path)} --minutes {more}"
