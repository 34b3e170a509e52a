"""The hot loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.inference import logits_in_batches
from peewit.preprocessing import Preprocessing
from peewit.training.checkpoint import Position
from peewit.training.progress import Progress
from peewit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, on what, and how."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    preprocessing: Preprocessing
    training: Dataset
    validation: Dataset
    recipe: Recipe


def fit(
    job: Job,
    position: Position,
    *,
    progress: Progress,
    stop: Callable[[], bool],
    save: Callable[[], None],
) -> bool:
    """Train from ``position``, which is kept up to date, to the recipe's last epoch.

    What a step does depends on the seed, the position, the weights, the optimiser and PyTorch's
    random state, and on nothing else. So a training that goes on from a saved state ends with the
    same weights, bit for bit, as one that was never stopped.

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

    Returns
    -------
    bool
        True if the last epoch has ended, False if ``stop`` was true before.

    Raises
    ------
    PeewitError
        The loss or the weights are no numbers any more.
    """
    model, optimizer, recipe = job.model, job.optimizer, job.recipe
    images, labels = job.training.images, torch.tensor(job.training.labels)
    steps = math.ceil(len(images) / recipe.batch_size)
    next_save = time.monotonic() + 60 * recipe.checkpoint_minutes

    while position.epoch < recipe.epochs:
        order = epoch_order(recipe.seed, position.epoch, len(images))
        model.train()
        while position.step < steps:
            began = time.perf_counter()
            first = position.step * recipe.batch_size
            batch = order[first : first + recipe.batch_size]  # the last one may be smaller
            # Gathering and scaling 32 images takes 0.2 to 0.3 ms of a step's 20 on two cores: a
            # thread of its own for this could gain 1 %.
            x, y = job.preprocessing.tensor(images[batch]), labels[batch]  # (n, C, H, W), (n,)
            logits = model(x)  # (n, classes)
            loss = F.cross_entropy(logits, y)
            if not math.isfinite(loss.item()):
                raise _diverged("the loss", position, recipe)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

            position.step += 1
            position.images += len(batch)
            position.correct += int((logits.argmax(1) == y).sum())
            position.loss_sum += loss.item() * len(batch)
            position.seconds += time.perf_counter() - began
            progress.step(position)
            if stop():
                break
            if time.monotonic() >= next_save:
                _check_weights(model, position, recipe)
                save()
                next_save = time.monotonic() + 60 * recipe.checkpoint_minutes

        _check_weights(model, position, recipe)
        began = time.perf_counter()
        validated = None if stop() else validate(job, stop)
        if validated is None:
            save()
            return False
        row: dict[str, float] = {
            "epoch": position.epoch + 1,
            "seconds": position.seconds + time.perf_counter() - began,
            "images_per_second": position.images / position.seconds,
            "loss": position.loss,
            "accuracy": position.accuracy,
            "validation_loss": validated[0],
            "validation_accuracy": validated[1],
        }
        position.next_epoch(row)
        save()
        progress.epoch_end(row)
    return True


def epoch_order(seed: int, epoch: int, images: int) -> npt.NDArray[np.int64]:
    """Return the order of the images in an epoch, int64, shape (images,).

    It depends on its arguments alone, so that going on in the middle of an epoch needs no more
    than the number of the step.

    >>> epoch_order(seed=0, epoch=3, images=5).tolist()
    [3, 0, 2, 1, 4]
    """
    return np.random.default_rng((seed, epoch)).permutation(images)


def validate(job: Job, stop: Callable[[], bool]) -> tuple[float, float] | None:
    """Return loss and accuracy of the validation images, or None if ``stop`` became true."""
    parts = []
    for part in logits_in_batches(job.model, job.preprocessing, job.validation.images):
        if stop():
            return None
        parts.append(part)
    logits = torch.from_numpy(np.concatenate(parts))  # (N, classes)
    labels = torch.tensor(job.validation.labels)
    accuracy = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits, labels).item(), accuracy.item()


def _check_weights(model: nn.Module, position: Position, recipe: Recipe) -> None:
    # before each save, so that no broken state replaces a good one; under 0.1 ms for the tutorial
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise _diverged("a weight", position, recipe)


def _diverged(what: str, position: Position, recipe: Recipe) -> PeewitError:
    return PeewitError(
        f"the training went out of bounds in epoch {position.epoch + 1}, step {position.step + 1}",
        f"{what} is no longer a finite number (what was saved before is good)",
        f"train with a lower learning rate (--lr) than {recipe.lr:g}",
    )
