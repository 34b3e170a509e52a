"""Cross-validation: train one network a fold, and test each image with one that never saw it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from peewit.data.dataset import Dataset
from peewit.evaluation.inference import confidence_threshold
from peewit.evaluation.temperature import FEWEST, calibrate
from peewit.evaluation.temperature import fold as fold_temperature
from peewit.report.final_test import FinalLogits, estimate_statistics, final_logits
from peewit.runs.folds import Curve, FoldResults
from peewit.system.text import counted
from peewit.training.budget.plan import Ending, Measured
from peewit.training.budget.planner import AUGMENTED
from peewit.training.budget.schedules import Schedules
from peewit.training.build import setup_of
from peewit.training.callbacks import Callback, CallbackList, TrainInfo
from peewit.training.loop import TrainSetup, fit
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState
from peewit.transfer.start import begin_with_head

FeaturesOf = Callable[[Dataset], npt.NDArray[np.float32]]


class _OneFold(Callback):
    """Passes on the steps of a fold, which are not those of the run."""

    def __init__(self, outer: CallbackList) -> None:
        self.outer = outer

    def on_step_end(self, state: TrainState) -> None:
        """Show the progress."""
        self.outer.on_fold_step(state)

    def should_stop(self) -> bool:
        """Return whether to stop the whole run."""
        return self.outer.should_stop()


def cross_validate(
    path: Path,
    dataset: Dataset,
    folds: npt.NDArray[np.int64],
    recipe: Recipe,
    measured: Measured | None,
    callbacks: CallbackList,
    ends: float | None = None,
    features: FeaturesOf | None = None,
) -> FoldResults:
    """Train and test the network of each fold that is not finished in the run folder.

    The images of a fold are also the validation images of its network: no choice depends on them,
    because its training has the length that was fixed before.

    Parameters
    ----------
    path : Path
        The run folder, which gets the results after each fold.
    dataset : Dataset
    folds : int64 array, shape (N,)
        The fold of each image, from 0.
    recipe : Recipe
        Resolved.
    measured : Measured or None
        For a recipe with a budget.
    callbacks : CallbackList
    ends : float, optional
        When, on ``time.perf_counter``, the budget for the training of the folds and of the final
        network ends. Each fold gets its part of what is left.
    features : callable, optional
        Of a pretrained network, whose last layer is all that the folds train.

    Raises
    ------
    StopTraining
        A callback asked to stop; the finished folds are saved.
    PeewitError
        The training diverged, or the results cannot be written.
    """
    results = FoldResults.read(path, len(dataset), len(dataset.class_names))
    count = int(folds.max()) + 1
    for number in range(len(results.accuracies), count):
        began = time.perf_counter()
        held = folds == number
        training, held_out = dataset.take(~held), dataset.take(held)
        one = recipe.replace(
            calibrate=False, batch_size=min(recipe.batch_size, len(training)), until_accuracy=None
        )
        if ends is not None:
            # all networks get the same number of epochs
            left = [float((folds != other).sum()) for other in range(number, count)]
            share = (ends - began) * len(training) / (sum(left) + len(dataset))
            one = one.replace(minutes=max(share, 1e-3) / 60)
        found = _train_fold(
            *(training, held_out, one, measured, callbacks, (number + 1, count), features)
        )
        results.logits[held], results.single[held] = found[0].logits, found[0].single
        right = int((found[0].logits.argmax(1) == held_out.labels).sum())
        results.accuracies.append(right / len(held_out))
        results.curves.append(found[1])
        results.spent += time.perf_counter() - began
        results.write(path)
        callbacks.note(
            f"fold {number + 1} of {count}: {right:,} of {len(held_out):,} images are classified "
            f"correctly ({right / len(held_out):.1%})"
        )
    return results


def _train_fold(
    training: Dataset,
    held_out: Dataset,
    recipe: Recipe,
    measured: Measured | None,
    callbacks: CallbackList,
    number: tuple[int, int],
    features: FeaturesOf | None,
) -> tuple[FinalLogits, Curve]:
    torch.manual_seed(recipe.seed)
    setup = setup_of(training, held_out, recipe, lambda sentence: None)
    setup = replace(setup, features=features)
    if measured is not None:
        test = len(held_out) * measured.speed.inference
        ending = Ending(test=2 * test, augmentation=recipe.tta * AUGMENTED * test, rest=0.0)
        measured = Measured(speed=measured.speed, ending=ending, threads=measured.threads)
    schedules = Schedules(
        recipe, len(training), lambda sentence: None, measured, time.perf_counter()
    )
    schedules.fewest = 0  # a fold that starts late trains for at least a step
    state, own = TrainState(), CallbackList([_OneFold(callbacks)])
    images = min(len(training), setup.steps_per_epoch * recipe.batch_size)
    info = TrainInfo(recipe.epochs, images, recipe.batch_size)
    callbacks.on_fold_begin(*number, info, state)
    if features is not None:
        begin_with_head(setup, state, own)
    for schedule in schedules.each(state):
        fit(setup, state, own, schedule)
    found = final_logits(setup, held_out, own, schedules.decide_augmentation)
    curve = [
        [
            row["images"] / state.seen if state.seen else 1.0,
            row["validation_loss"],
            row["validation_accuracy"],
        ]
        for row in state.history
    ]
    return found, curve


def pooled_logits(
    setup: TrainSetup, results: FoldResults, dataset: Dataset, callbacks: CallbackList
) -> FinalLogits:
    """Finish the final network, and return the out-of-fold logits of all images.

    It is calibrated by the out-of-fold logits, and they give it its threshold for test-time
    augmentation: the final network itself was trained on all images.

    Parameters
    ----------
    setup : TrainSetup
        Of the final network.
    results : FoldResults
        Complete.
    dataset : Dataset
    callbacks : CallbackList
    """
    estimated_from = estimate_statistics(setup, callbacks)
    logits, single, calibration = results.logits, results.single, None
    if setup.recipe.calibrate:
        calibration = calibrate(single, dataset.labels)
        if calibration is not None:
            fold_temperature(setup.model, calibration.temperature)
            divisor = np.float32(calibration.temperature)
            logits, single = logits / divisor, single / divisor
        elif len(dataset) < FEWEST:
            callbacks.note(
                f"the confidence is not calibrated: only {counted(len(dataset), 'image')}, at "
                f"least {FEWEST} are needed"
            )
        else:
            callbacks.note("the confidence is not calibrated: the network is no better than chance")
    threshold = 0.0
    if setup.recipe.tta and not np.array_equal(results.logits, results.single):
        threshold = confidence_threshold(single)
    return FinalLogits(logits, single, threshold, calibration, estimated_from, held_out=logits)


def metrics_of(results: FoldResults) -> dict[str, Any]:
    """Return what ``metrics.json`` has besides the metrics of the pooled predictions."""
    return {"fold_accuracies": list(results.accuracies)}
