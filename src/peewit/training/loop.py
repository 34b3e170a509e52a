"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.data.store import prefetch
from peewit.errors import PeewitError
from peewit.evaluation.inference import logits_in_batches
from peewit.images.preprocessing import Preprocessing
from peewit.models import batch_norm
from peewit.models.flops import TrainingFlops
from peewit.training.augment import Augment
from peewit.training.callbacks import CallbackList, StopTraining
from peewit.training.distributed import Processes
from peewit.training.recipe import Recipe
from peewit.training.sampler import HardExamples, epoch_order
from peewit.training.schedules import EpochSchedule, Schedule, set_learning_rates
from peewit.training.state import Row, TrainState

# With a decaying learning rate, validate after each eighth of the training: accuracies at high
# rates are not meaningful, and short epochs would spend their time on validation.
VALIDATE_EVERY = 1 / 8


@dataclass(frozen=True, kw_only=True)
class TrainSetup:
    """What is trained, on what, and how: everything that is constant during training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    preprocessing: Preprocessing
    training: Dataset
    validation: Dataset
    recipe: Recipe
    augment: Augment | None = None
    """Augments the training images; None for a recipe without augmentation."""
    hard_examples: HardExamples | None = None
    """Leaves out easy training images; None for a recipe that uses all of them."""
    class_weights: torch.Tensor | None = None
    """Weight of each class in the loss, float32, shape (classes,); None counts all equally."""
    flops: TrainingFlops | None = None
    """Counts the operations of a step; None leaves them out of the history."""
    copies: Sequence[int] = ()
    """Indices of the images of the final test that are also training images."""
    validated_by_folds: Callable[[float], tuple[float, float]] | None = None
    """Returns validation loss and accuracy at a share of the training if no images are held out."""
    features: Callable[[Dataset], npt.NDArray[np.float32]] | None = None
    """Returns the features of images by the pretrained network, float32 (N, features), while only
    its last layer has been trained; None if the features are no longer those, or never were."""
    best_rate: float | None = None
    """The highest rate measured on this machine, in operations per second."""
    processes: Processes | None = None
    """The processes that each batch is divided among; None if there is only one."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.recipe.steps(len(self.training))

    @property
    def needs_statistics(self) -> bool:
        """Whether to estimate batch normalisation's statistics before using the model."""
        return self.recipe.batch_norm_statistics == "auto" and batch_norm.few_steps(self.model)

    def estimate_statistics(self, before_batch: Callable[[], None]) -> int:
        """Estimate them from training images, in place; return the number of images."""
        return batch_norm.estimate(
            self.model,
            self.preprocessing.tensor,
            self.training.images,
            self.recipe.batch_size,
            before_batch,
        )

    def logits(self, dataset: Dataset, before_batch: Callable[[], None]) -> npt.NDArray[np.float32]:
        """Return the logits of all images, float32 (N, classes), by one view of each."""
        if self.features is not None:
            x = torch.from_numpy(self.features(dataset))
            with torch.inference_mode():
                found: npt.NDArray[np.float32] = self.model.get_submodule("head")(x).numpy()
            return found
        parts = []
        for part in logits_in_batches(self.model, self.preprocessing.tensor, dataset.images):
            before_batch()
            parts.append(part)
        return np.concatenate(parts)

    def flops_per_image(self) -> int:
        """Return the operations of a step per image, for the parameters trained at present."""
        rule = self.preprocessing
        shape = (rule.height, rule.width, rule.channels)
        return self.flops.an_image(shape) if self.flops else 0


class Batch(NamedTuple):
    """The images of one step.

    Parameters
    ----------
    indices : int64 array, shape (n,)
        Their positions in the training set.
    visit : int
        How many times each of them has been visited before; augmentation depends on it.
    """

    indices: npt.NDArray[np.int64]
    visit: int


class StepResult(NamedTuple):
    """The numbers of one step: the mean loss, each image's loss (n,), and correct predictions."""

    loss: float
    losses: npt.NDArray[np.float32]
    correct: int


def fit(
    setup: TrainSetup,
    state: TrainState,
    callbacks: CallbackList | None = None,
    schedule: Schedule | None = None,
) -> None:
    """Train from ``state``, which is kept up to date, to the end of the schedule.

    A step depends only on the seed, the state, the weights, the optimiser and PyTorch's random
    state. So a resumed run ends with the same weights, bit for bit, as an uninterrupted one, unless
    its schedule follows the clock.

    Parameters
    ----------
    setup : TrainSetup
    state : TrainState
        Where to begin.
    callbacks : CallbackList, optional
    schedule : Schedule, optional
        By default the recipe's epochs.

    Raises
    ------
    StopTraining
        A callback asked to stop. Its ``on_interrupt`` has been called.
    PeewitError
        The training diverged: the loss or a weight is not a finite number.
    """
    model, optimizer, recipe = setup.model, setup.optimizer, setup.recipe
    callbacks = callbacks or CallbackList()
    if schedule is None:
        assert recipe.epochs is not None, "a recipe with a budget has a schedule of its own"
        schedule = EpochSchedule(recipe.epochs, setup.steps_per_epoch)
    start = time.perf_counter() - state.spent

    def over() -> bool:
        return schedule.is_over(state) and state.epochs_begun > 0  # at least one step

    if setup.processes:
        setup.processes.begin(model)
    try:
        schedule.observe(state)
        # images that are not in the history yet still need a validation
        while state.images or not over():
            model.train()
            for batch in batches(setup, state):
                if over():
                    break
                began = time.perf_counter()
                state.fraction_done = schedule.fraction_done(state)
                if recipe.schedule == "linear":
                    set_learning_rates(optimizer, state.fraction_done)
                if setup.processes:
                    setup.processes.send(batch.indices, batch.visit, state.fraction_done)
                loss, losses, correct = train_step(setup, batch)
                if not math.isfinite(loss):
                    raise _diverged("the loss", state, state.step + 1, recipe)
                if setup.hard_examples:
                    setup.hard_examples.record_losses(batch.indices, losses)
                count = len(batch.indices)
                state.record_step(count, correct, loss, count * setup.flops_per_image())
                state.seconds += time.perf_counter() - began
                state.spent = time.perf_counter() - start
                schedule.observe(state)
                callbacks.on_step_end(state)
                callbacks.check_stop()
            check_weights(model, state, recipe)
            row = None
            fraction_done = schedule.fraction_done(state)
            if state.images and (over() or _validation_is_due(state, fraction_done, recipe)):
                row = validated(setup, state, callbacks, 1.0 if over() else fraction_done)
                state.add_row(row, fraction_done)
            if state.step:  # otherwise only the validation was missing
                state.next_epoch()
            schedule.observe(state)
            if over():
                state.fraction_done = 1.0  # tells a resumed run that this schedule has ended
            state.spent = time.perf_counter() - start
            callbacks.on_epoch_end(state, row)
    except StopTraining:
        callbacks.on_interrupt(state)
        raise


def batches(setup: TrainSetup, state: TrainState) -> Iterator[Batch]:
    """Yield the rest of the current epoch's batches, from ``state.step`` on."""
    count, size, epoch = len(setup.training), setup.recipe.batch_size, state.epoch
    if setup.hard_examples:
        if state.step == 0:
            setup.hard_examples.choose(epoch)
        order, visits = setup.hard_examples.order(epoch)
    else:
        order, visits = epoch_order(setup.recipe.seed, epoch, count), np.full(count, epoch)
    for step in range(state.step, setup.steps_per_epoch):
        first = step * size
        # the next batch, if it has to be decoded, is decoded while this one is trained on
        prefetch(setup.training.images, order[first + size : first + 2 * size])
        # the last batch may be smaller
        yield Batch(order[first : first + size], int(visits[first]))


def train_step(setup: TrainSetup, batch: Batch) -> StepResult:
    """Update the weights once, by the gradient of one batch's mean loss."""
    if setup.processes:
        return _divided_step(setup, batch, setup.processes)
    loss, losses, correct = _forward(setup, batch)
    setup.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    setup.optimizer.step()
    return StepResult(loss.item(), losses.numpy(), int(correct.sum()))


def _divided_step(setup: TrainSetup, batch: Batch, processes: Processes) -> StepResult:
    """Do the same with the batch divided among processes, but for rounding."""
    count = len(batch.indices)
    with processes.dividing(count) as part:
        mine = Batch(batch.indices[part], batch.visit)
        loss, losses, correct = _forward(setup, mine)
        # so that the sum over the processes is the mean of the batch
        loss = loss * (len(mine.indices) / count)
        setup.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        processes.sum_gradients(setup.model)
        setup.optimizer.step()
        means = loss.detach().expand(len(losses)) / max(len(losses), 1)
        means, losses, correct = processes.of_all(
            torch.stack((means, losses, correct.float()), 1)
        ).T
    return StepResult(float(means.sum()), losses.numpy(), int(correct.sum()))


def _forward(setup: TrainSetup, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean loss, and each image's loss and whether it was classified correctly."""
    images = setup.training.images
    if setup.augment:
        # in this thread: its time is negligible compared with the rest of the step
        pixels = setup.augment.batch(batch.indices, batch.visit)
    else:
        pixels = images[batch.indices]
    x = setup.preprocessing.tensor(pixels)  # (n, C, H, W)
    y = torch.from_numpy(setup.training.labels[batch.indices])  # (n,)
    with torch.autocast("cpu", torch.bfloat16, enabled=setup.recipe.precision == "bfloat16"):
        logits = setup.model(x).float()  # (n, classes)
    if not len(y):  # a small batch among many processes
        return logits.sum(), logits.new_empty(0), logits.new_empty(0)
    loss, losses = cross_entropy(logits, y, setup.recipe.label_smoothing, setup.class_weights)
    return loss, losses, logits.argmax(1) == y


def follow(setup: TrainSetup) -> None:
    """Take part in the training steps of rank 0 until it ends the training."""
    assert setup.processes is not None
    for indices, visit, fraction_done in setup.processes.received(setup.model):
        setup.model.train()
        if setup.recipe.schedule == "linear":
            set_learning_rates(setup.optimizer, fraction_done)
        train_step(setup, Batch(indices, visit))


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    smoothing: float = 0.0,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean cross-entropy with label smoothing, and each image's, without gradient.

    The mean, and its gradient, are those of ``torch.nn.functional.cross_entropy``, bit for bit,
    but the logarithms of the probabilities are computed once for both results.

    Parameters
    ----------
    logits : float32 tensor, shape (n, classes)
    labels : int64 tensor, shape (n,)
    smoothing : float
        The share of each label that is spread over all classes.
    weights : float32 tensor, shape (classes,), optional
        Weight of the images of each class in the mean, which is divided by n, not by the sum of
        the weights: the weight of an image does not depend on the others in its batch. The losses
        of the images are unweighted.

    Returns
    -------
    float32 tensor, shape (), and float32 tensor, shape (n,)

    Examples
    --------
    >>> mean, each = cross_entropy(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 0]))
    >>> round(mean.item(), 3), each.numpy().round(3).tolist()
    (0.371, [0.6930000185966492, 0.04899999871850014])
    """
    if weights is not None:
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return (weights[labels] * each).mean(), each.detach()
    log_probabilities = F.log_softmax(logits, 1)
    mean = F.nll_loss(log_probabilities, labels)
    with torch.no_grad():
        each = F.nll_loss(log_probabilities, labels, reduction="none")
    if smoothing:
        uniform = -log_probabilities.sum(1)
        share = smoothing / logits.shape[1]
        mean = mean * (1 - smoothing) + uniform.mean() * share
        each = each * (1 - smoothing) + uniform.detach() * share
    return mean, each


def validated(
    setup: TrainSetup, state: TrainState, callbacks: CallbackList, fraction_done: float = 1.0
) -> Row:
    """Validate, and return the new row of the history.

    Without held-out images, the validation figures are those of the folds of the cross-validation
    at the same share of their training.

    Raises
    ------
    StopTraining
        A callback asked to stop.
    """
    began = time.perf_counter()
    if setup.validated_by_folds is None:
        loss, accuracy = _validate(setup, callbacks)
    else:
        loss, accuracy = setup.validated_by_folds(fraction_done)
    row: Row = {
        "epoch": state.epochs_begun,
        "seconds": state.seconds,
        "images_per_second": state.images_per_second,
        "loss": state.loss,
        "accuracy": state.accuracy,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
        "images": state.seen,
    }
    row["seconds"] += time.perf_counter() - began
    if setup.flops is not None:
        rate = state.flops_per_second
        row |= {"flops": state.flops, "gflops": rate / 1e9}
        if setup.best_rate is not None:
            row["share_of_best"] = rate / setup.best_rate
    return row


def _validate(setup: TrainSetup, callbacks: CallbackList) -> tuple[float, float]:
    """Return the loss and the accuracy on the validation images."""
    labels = torch.tensor(setup.validation.labels)
    with batch_norm.restored(setup.model):  # the training continues with its own statistics
        if setup.needs_statistics:
            setup.estimate_statistics(callbacks.check_stop)
        logits = torch.from_numpy(setup.logits(setup.validation, callbacks.check_stop))
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return F.cross_entropy(logits, labels).item(), accuracy


def _validation_is_due(state: TrainState, fraction_done: float, recipe: Recipe) -> bool:
    """Return whether to validate at the end of an epoch that is not the last."""
    if recipe.schedule == "constant" or fraction_done >= 1:
        return True
    # a smaller fraction than before is that of a new schedule
    return not 0 <= fraction_done - state.validated < VALIDATE_EVERY


def check_weights(model: nn.Module, state: TrainState, recipe: Recipe) -> None:
    """Raise PeewitError if a weight is not finite. Called before saving over good weights."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise _diverged("a weight", state, state.step, recipe)


def _diverged(what: str, state: TrainState, step: int, recipe: Recipe) -> PeewitError:
    return PeewitError(
        f"the training diverged in epoch {state.epoch + 1}, step {step}",
        f"{what} is not a finite number (an earlier checkpoint, if there is one, is good)",
        f"train with a lower learning rate (--lr) than {recipe.lr}",
    )
