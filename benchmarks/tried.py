"""What was tried for the fast recipe and is not in it, and what is in it left out where no field of
a recipe says so: the numbers are recipe_parts.py's."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from peewit.training.loop import fit
from peewit.training.progress import Silent
from peewit.training.schedules import StepSchedule

# what `recipe_parts.PARTS` may say besides the fields of a recipe
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
    """Train to the end of the recipe's epochs.

    Parameters
    ----------
    job : Job
    position : Position
    average : float, optional
        The model ends as the exponential moving average of its weights, which keeps so much of
        itself at each step.
    lookahead : int, optional
        After each so many steps the weights go back half of the way to where they were before
        them: Lookahead [2]_.
    small_epochs : int
        The first so many epochs see the images in three quarters of their side, and so take 0.56
        of the operations: progressive resizing [1]_.
    easy_share : float
        From the third epoch on, this share of the images, those with the lowest losses when they
        were last seen, is left out of each pass: ``skip_easy`` chooses once an epoch.
    drawn_patches : bool
        The first layer keeps filters that were drawn, instead of those that whiten the patches.
    drawn_filters : bool
        The convolutions begin with filters that were drawn, none of which passes on a channel.
    bias_rate : float
        By what the rate of batch normalisation's biases is multiplied.

    References
    ----------
    .. [1] M. Tan, Q. Le, "EfficientNetV2: Smaller models and faster training", arXiv 2104.00298,
       section 4.
    .. [2] M. Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", arXiv 1907.08610,
       algorithm 1.
    """
    _start(job, drawn_patches, drawn_filters, bias_rate)
    if lookahead:
        Lookahead(job.optimizer, lookahead)
    kept = Average(job.model, job.optimizer, average) if average else None
    if small_epochs:
        rule = job.preprocessing
        small = replace(rule, height=rule.height * 3 // 4, width=rule.width * 3 // 4)
        _fit(replace(job, preprocessing=small), position, small_epochs)
    if easy_share:
        _without_the_easy(job, position, easy_share)
    else:
        _fit(job, position, job.recipe.epochs)
    if kept:
        kept.put()


def _start(job, drawn_patches, drawn_filters, bias_rate):
    """Undo what the network and its optimiser begin with."""
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
        group["weight_decay"] /= bias_rate  # rate times decay stays


class Lookahead:
    """Every ``each`` steps, half of the way back to the weights of before."""

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
    """The exponential moving average of a model's state, floating point values only."""

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

    def put(self):
        """Make it the model's state."""
        self.model.load_state_dict(self.kept, strict=False)


@dataclass(frozen=True)
class Until(StepSchedule):
    """The schedule of all epochs, of which only those before ``end`` are trained now."""

    end: int

    def done(self, position):
        """Return whether they have ended."""
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
    """The loss of each training image when it was last seen; stands in for the augmentation."""

    def __init__(self, job):
        self.augment, self.labels = job.augment, torch.tensor(job.training.labels)
        self.smoothing = job.recipe.label_smoothing
        self.last = torch.full((len(self.labels),), float("inf"))
        self.chosen = np.arange(len(self.labels))
        self.numbers = None
        job.model.register_forward_hook(self._seen)

    def batch(self, indices, epoch):
        """Return the images whose places among those that are trained on are ``indices``."""
        self.numbers = self.chosen[indices]
        return self.augment.batch(self.numbers, epoch)

    def _seen(self, model, arguments, logits):
        if model.training:
            y = self.labels[self.numbers]
            losses = F.cross_entropy(
                logits.detach().float(), y, reduction="none", label_smoothing=self.smoothing
            )
            self.last[self.numbers] = losses


def _without_the_easy(job, position, share):
    """Train as many images as the recipe's epochs have, in epochs that leave out the easy ones."""
    losses, images = Losses(job), len(job.training.images)
    total = job.recipe.epochs * images

    class ByImages:
        """Ends when so many images were seen, and pauses at each epoch's end."""

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
