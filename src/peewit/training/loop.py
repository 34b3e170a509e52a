"""The hot loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.evaluation.inference import logits_unless
from peewit.images.preprocessing import Preprocessing
from peewit.models.flops import TrainingFlops
from peewit.training.augment import Augment
from peewit.training.checkpoint import Position, Row
from peewit.training.progress import Progress
from peewit.training.recipe import Recipe
from peewit.training.sampler import HardExamples, epoch_order
from peewit.training.schedules import Schedule, StepSchedule, set_rates

# What has to be done of a training with falling rates between two validations, besides the last.
VALIDATE_EVERY = 1 / 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what, and how."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    preprocessing: Preprocessing
    training: Dataset
    validation: Dataset
    recipe: Recipe
    augment: Augment | None = None
    """Changes the training images; None for a recipe that leaves them as they are."""
    hard: HardExamples | None = None
    """Leaves out the training images that are easy; None for a recipe that goes through all."""
    work: TrainingFlops | None = None
    """Counts the operations of a step; None leaves them out of the history."""
    best_rate: float | None = None
    """The most operations a second that were measured on this machine."""

    def flops_an_image(self) -> int:
        """Return the operations of a step for each image, with what is trained at present."""
        rule = self.preprocessing
        shape = (rule.height, rule.width, rule.channels)
        return self.work.an_image(shape) if self.work else 0


def fit(
    job: Job,
    position: Position,
    *,
    progress: Progress,
    stop: Callable[[], bool],
    save: Callable[[], None],
    schedule: Schedule | None = None,
) -> bool:
    """Train from ``position``, which is kept up to date, to the end of the schedule.

    What a step does depends on the seed, the position, the weights, the optimiser and PyTorch's
    random state, and on nothing else. So a training that goes on from a saved state ends with the
    same weights, bit for bit, as one that was never stopped, unless its schedule is one of time.

    Parameters
    ----------
    job : Job
    position : Position
        Where to begin.
    progress : Progress
        What shows the numbers to the user.
    stop : callable
        Asked after each step; when true, the state is saved and the training ends.
    save : callable
        Saves the state. Called at each epoch's end and every ``checkpoint_minutes`` within.
    schedule : Schedule, optional
        When it ends: by default after the recipe's epochs.

    Returns
    -------
    bool
        True if the training has ended, False if ``stop`` was true before.

    Raises
    ------
    PeewitError
        The loss or the weights are no numbers any more.
    """
    model, optimizer, recipe = job.model, job.optimizer, job.recipe
    images, labels = job.training.images, torch.tensor(job.training.labels)
    steps = recipe.steps(len(images))
    if schedule is None:
        assert recipe.epochs is not None, "a recipe with a budget has a schedule of its own"
        schedule = StepSchedule(recipe.epochs, steps)
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16")
    next_save = time.monotonic() + 60 * recipe.checkpoint_minutes
    start = time.perf_counter() - position.spent

    def over() -> bool:
        return schedule.done(position) and position.begun > 0  # one step at the least

    # with images that no row has counted yet there is at least a validation to do
    while position.images or not over():
        if job.hard:
            if position.step == 0:
                job.hard.choose(position.epoch)
            order, visits = job.hard.order(position.epoch)
        else:
            order = epoch_order(recipe.seed, position.epoch, len(images))
            visits = np.full(len(images), position.epoch)
        model.train()
        while position.step < steps and not over():
            began = time.perf_counter()
            position.share = schedule.share(position)
            if recipe.schedule == "linear":
                set_rates(optimizer, position.share)
            first = position.step * recipe.batch_size
            batch = order[first : first + recipe.batch_size]  # the last one may be smaller
            # here and not in a thread of its own: beside the step it is next to nothing
            visit = int(visits[first])
            pixels = job.augment.batch(batch, visit) if job.augment else images[batch]
            x, y = job.preprocessing.tensor(pixels), labels[batch]  # (n, C, H, W), (n,)
            with bfloat16:
                logits = model(x).float()  # (n, classes)
            loss = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            if not math.isfinite(loss.item()):
                raise _diverged("the loss", position, position.step + 1, recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if job.hard:
                losses = F.cross_entropy(
                    logits.detach(), y, label_smoothing=recipe.label_smoothing, reduction="none"
                )
                job.hard.saw(batch, losses.numpy())  # (n,)

            position.step += 1
            position.images += len(batch)
            position.correct += int((logits.argmax(1) == y).sum())
            position.loss_sum += loss.item() * len(batch)
            position.seen += len(batch)
            position.flops += len(batch) * job.flops_an_image()
            position.seconds += time.perf_counter() - began
            position.spent = time.perf_counter() - start
            progress.step(position)
            if stop():
                break
            if time.monotonic() >= next_save:
                _check_weights(model, position, recipe)
                save()
                next_save = time.monotonic() + 60 * recipe.checkpoint_minutes

        _check_weights(model, position, recipe)
        share = schedule.share(position)
        due = position.images > 0 and (share >= 1 or over() or _due(position, share, recipe))
        row = None if stop() else _row(job, position, stop) if due else {}
        if row is None:
            save()
            return False
        if row:
            position.next_row(row, share)
        if position.step:  # otherwise all that was missing was this validation
            position.next_epoch()
        if over():
            position.share = 1.0  # saved, so that who goes on knows that this schedule has ended
        position.spent = time.perf_counter() - start
        save()
        if row:
            progress.epoch_end(row)
    return True


def validate(job: Job, stop: Callable[[], bool]) -> tuple[float, float] | None:
    """Return loss and accuracy of the validation images, or None if ``stop`` became true."""
    found = logits_unless(stop, job.model, job.preprocessing, job.validation.images)
    if found is None:
        return None
    logits = torch.from_numpy(found)  # (N, classes)
    labels = torch.tensor(job.validation.labels)
    accuracy = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits, labels).item(), accuracy.item()


def _due(position: Position, share: float, recipe: Recipe) -> bool:
    """Tell whether to validate at the end of an epoch that is not the last."""
    if recipe.schedule == "constant":
        return True
    # warm rates give accuracies that say little, so not after each of many short epochs; a share
    # that went back is that of a new schedule
    return not 0 <= share - position.validated < VALIDATE_EVERY


def _row(job: Job, position: Position, stop: Callable[[], bool]) -> Row | None:
    """Validate, and return the row of the history; None if ``stop`` became true."""
    began = time.perf_counter()
    validated = validate(job, stop)
    if validated is None:
        return None
    row: Row = {
        "epoch": position.begun,
        "seconds": position.seconds + time.perf_counter() - began,
        "images_per_second": position.images_per_second,
        "loss": position.loss,
        "accuracy": position.accuracy,
        "validation_loss": validated[0],
        "validation_accuracy": validated[1],
        "images": position.seen,
    }
    if job.work is not None:
        rate = position.flops_per_second
        row |= {"flops": position.flops, "gflops": rate / 1e9}
        if job.best_rate is not None:
            row["share_of_best"] = rate / job.best_rate
    return row


def _check_weights(model: nn.Module, position: Position, recipe: Recipe) -> None:
    # before each save, so that no broken state replaces a good one
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise _diverged("a weight", position, position.step, recipe)


def _diverged(what: str, position: Position, step: int, recipe: Recipe) -> PeewitError:
    return PeewitError(
        f"the training went out of bounds in epoch {position.epoch + 1}, step {step}",
        f"{what} is no longer a finite number (what was saved before, if anything, is good)",
        f"train with a lower learning rate (--lr) than {recipe.lr}",
    )
