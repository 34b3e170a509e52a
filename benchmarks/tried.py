"""Variants of the fast recipe that no field of a recipe offers, for recipe_parts.py.

Techniques that were tried and not adopted, and parts of the recipe that can be switched off here.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from peewit.training.loop import fit
from peewit.training.progress import Silent
from peewit.training.schedules import StepSchedule

# keys that `recipe_parts.PARTS` may use in addition to recipe fields
TRIED = (
    "average",
    "lookahead",
    "small_epochs",
    "easy_share",
    "drawn_patches",
    "drawn_filters",
    "bias_rate",
)


def train(
    job,
    position,
    average=None,
    lookahead=None,
    small_epochs=0,
    easy_share=0.0,
    drawn_patches=False,
    drawn_filters=False,
    bias_rate=1.0,
):
    """Train for the recipe's epochs with variants of the recipe.

    Parameters
    ----------
    job : Job
    position : Position
    average : float, optional
        Decay per step of an exponential moving average of the weights, which the model ends with.
    lookahead : int, optional
        Every this many steps, move the weights half of the way back to their values before those
        steps: Lookahead [2]_.
    small_epochs : int
        Number of first epochs with images at three quarters of their side, which take 0.56 of the
        operations: progressive resizing [1]_.
    easy_share : float
        From the third pass on, leave out this share of the images, those whose last losses were
        lowest; chosen again at each pass, where ``skip_easy`` chooses once per epoch.
    drawn_patches : bool
        Fix the first layer to random filters instead of whitening filters.
    drawn_filters : bool
        Initialise all convolution filters at random, none as the identity.
    bias_rate : float
        Factor for the learning rate of batch normalisation's biases.

    References
    ----------
    .. [1] M. Tan, Q. Le, "EfficientNetV2: Smaller models and faster training", arXiv 2104.00298,
       section 4.
    .. [2] M. Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", arXiv 1907.08610,
       algorithm 1.
    """
    _initialise(job, drawn_patches, drawn_filters, bias_rate)
    if lookahead:
        Lookahead(job.optimizer, lookahead)
    kept = Average(job.model, job.optimizer, average) if average else None
    if small_epochs:
        rule = job.preprocessing
        small = replace(rule, height=rule.height * 3 // 4, width=rule.width * 3 // 4)
        _fit(replace(job, preprocessing=small), position, small_epochs)
    if easy_share:
        _without_easy(job, position, easy_share)
    else:
        _fit(job, position, job.recipe.epochs)
    if kept:
        kept.apply()


def _initialise(job, drawn_patches, drawn_filters, bias_rate):
    """Apply the variants of initialisation and learning rates."""
    generator = torch.Generator().manual_seed(job.recipe.seed)
    drawn = [job.model.whitening.weight] if drawn_patches else []
    if drawn_filters:
        drawn += [stage.conv.weight for stage in job.model.blocks]
    for weight in drawn:
        nn.init.kaiming_uniform_(weight.data, a=math.sqrt(5), generator=generator)
    if bias_rate != 1:
        biases = {id(stage.norm.bias) for stage in job.model.blocks}
        (group,) = [
            group
            for group in job.optimizer.param_groups
            if {id(parameter) for parameter in group["params"]} == biases
        ]
        group["first_lr"] *= bias_rate
        group["weight_decay"] /= bias_rate  # so that rate times decay stays the same


class Lookahead:
    """Every ``each`` steps, move the weights half of the way back to the previous ones."""

    def __init__(self, optimizer, each):
        self.each, self.steps = each, 0
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.slow = [(p, p.detach().clone()) for p in trained]
        optimizer.register_step_post_hook(self._step)

    @torch.no_grad()
    def _step(self, optimizer, arguments, named):
        self.steps += 1
        if self.steps % self.each == 0:
            for parameter, slow in self.slow:
                parameter.copy_(slow.lerp_(parameter, 0.5))


class Average:
    """Exponential moving average of the floating-point values of a model's state."""

    def __init__(self, model, optimizer, decay):
        self.model, self.decay = model, decay
        self.kept = {name: value.clone() for name, value in self._state().items()}
        optimizer.register_step_post_hook(self._step)

    def _state(self):
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}

    def _step(self, optimizer, arguments, named):
        for name, value in self._state().items():
            self.kept[name].lerp_(value, 1 - self.decay)

    def apply(self):
        """Load the average into the model."""
        self.model.load_state_dict(self.kept, strict=False)


@dataclass(frozen=True)
class Until(StepSchedule):
    """The schedule of all epochs, paused before the epoch ``end``."""

    end: int

    def done(self, position):
        """Return whether ``end`` is reached."""
        return position.epoch >= self.end


def _fit(job, position, end):
    steps = job.recipe.steps(len(job.training.images))
    schedule = Until(job.recipe.epochs, steps, end)
    _run(job, position, schedule)


def _run(job, position, schedule):
    fit(
        job,
        position,
        progress=Silent(),
        stop=lambda: False,
        save=lambda: None,
        schedule=schedule,
    )


class Losses:
    """Record the last loss of each training image, in place of the job's augmentation."""

    def __init__(self, job):
        self.augment, self.labels = job.augment, torch.tensor(job.training.labels)
        self.smoothing = job.recipe.label_smoothing
        self.last = torch.full((len(self.labels),), float("inf"))
        self.chosen = np.arange(len(self.labels))
        self.numbers = None
        job.model.register_forward_hook(self._seen)

    def batch(self, indices, epoch):
        """Return the augmented images at ``indices`` among the chosen ones."""
        self.numbers = self.chosen[indices]
        return self.augment.batch(self.numbers, epoch)

    def _seen(self, model, arguments, logits):
        if model.training:
            y = self.labels[self.numbers]
            losses = F.cross_entropy(
                logits.detach().float(), y, reduction="none", label_smoothing=self.smoothing
            )
            self.last[self.numbers] = losses


def _without_easy(job, position, share):
    """Train on as many images as the recipe's epochs have, leaving out the easy ones."""
    losses, images = Losses(job), len(job.training.images)
    total = job.recipe.epochs * images

    class ByImages:
        """End after ``total`` images, and pause at the end of each epoch."""

        def share(self, position):
            return min(1.0, position.seen / total)

        def done(self, position):
            return position.seen >= total or position.epoch > self.epoch

    schedule = ByImages()
    while position.seen < total:
        schedule.epoch = position.epoch
        if position.epoch >= 2:
            order = torch.argsort(losses.last, descending=True)[: round(images * (1 - share))]
            losses.chosen = np.sort(order.numpy())
        part = job.training.take(losses.chosen)
        _run(replace(job, training=part, augment=losses), position, schedule)
