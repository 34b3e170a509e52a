"""What was tried for the fast recipe and is not in it: its numbers are recipe_parts.py's."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from peewit.training.loop import fit
from peewit.training.progress import Silent
from peewit.training.schedule import StepSchedule

# what `recipe_parts.PARTS` may say besides the fields of a recipe
TRIED = ("average", "small_epochs", "easy_share")


def train(job, position, average=None, small_epochs=0, easy_share=0.0):
    """Train to the end of the recipe's epochs.

    Parameters
    ----------
    job : Job
    position : Position
    average : float, optional
        The model ends as the exponential moving average of its weights, which keeps so much of
        itself at each step.
    small_epochs : int
        The first so many epochs see the images in three quarters of their side, and so take 0.56
        of the operations: progressive resizing [1]_.
    easy_share : float
        From the third epoch on, this share of the images, those with the lowest losses when they
        were last seen, is left out of each pass: ``skip_easy`` chooses once an epoch.

    References
    ----------
    .. [1] M. Tan, Q. Le, "EfficientNetV2: Smaller models and faster training", arXiv 2104.00298,
       section 4.
    """
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
