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
from peewit.training.schedules import EpochSchedule

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
    setup,
    state,
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
    setup : TrainSetup
    state : TrainState
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
    _initialise(setup, drawn_patches, drawn_filters, bias_rate)
    if lookahead:
        Lookahead(setup.optimizer, lookahead)
    kept = Average(setup.model, setup.optimizer, average) if average else None
    if small_epochs:
        rule = setup.preprocessing
        small = replace(rule, height=rule.height * 3 // 4, width=rule.width * 3 // 4)
        _fit(replace(setup, preprocessing=small), state, small_epochs)
    if easy_share:
        _without_easy(setup, state, easy_share)
    else:
        _fit(setup, state, setup.recipe.epochs)
    if kept:
        kept.apply()


def _initialise(setup, drawn_patches, drawn_filters, bias_rate):
    """Apply the variants of initialisation and learning rates."""
    generator = torch.Generator().manual_seed(setup.recipe.seed)
    drawn = [setup.model.whitening.weight] if drawn_patches else []
    if drawn_filters:
        drawn += [stage.conv.weight for stage in setup.model.blocks]
    for weight in drawn:
        nn.init.kaiming_uniform_(weight.data, a=math.sqrt(5), generator=generator)
    if bias_rate != 1:
        biases = {id(stage.norm.bias) for stage in setup.model.blocks}
        (group,) = [
            group
            for group in setup.optimizer.param_groups
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
class Until(EpochSchedule):
    """The schedule of all epochs, paused before the epoch ``end``."""

    end: int

    def is_over(self, state):
        """Return whether ``end`` is reached."""
        return state.epoch >= self.end


def _fit(setup, state, end):
    fit(setup, state, schedule=Until(setup.recipe.epochs, setup.steps_per_epoch, end))


class Losses:
    """Record the last loss of each training image, in place of the augmentation."""

    def __init__(self, setup):
        self.augment, self.labels = setup.augment, torch.tensor(setup.training.labels)
        self.smoothing = setup.recipe.label_smoothing
        self.last = torch.full((len(self.labels),), float("inf"))
        self.chosen = np.arange(len(self.labels))
        self.numbers = None
        setup.model.register_forward_hook(self._seen)

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


def _without_easy(setup, state, share):
    """Train on as many images as the recipe's epochs have, leaving out the easy ones."""
    losses, images = Losses(setup), len(setup.training.images)
    total = setup.recipe.epochs * images

    class ByImages:
        """End after ``total`` images, and pause at the end of each epoch."""

        def observe(self, state):
            pass

        def fraction_done(self, state):
            return min(1.0, state.seen / total)

        def is_over(self, state):
            return state.seen >= total or state.epoch > self.epoch

    schedule = ByImages()
    while state.seen < total:
        schedule.epoch = state.epoch
        if state.epoch >= 2:
            order = torch.argsort(losses.last, descending=True)[: round(images * (1 - share))]
            losses.chosen = np.sort(order.numpy())
        part = setup.training.take(losses.chosen)
        fit(replace(setup, training=part, augment=losses), state, schedule=schedule)
