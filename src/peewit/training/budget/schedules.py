"""What a training runs through: its epochs, or its minutes, or rounds until it is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.models.registry import find
from peewit.system.malloc import freed_memory_kept
from peewit.system.text import duration
from peewit.training.budget.benchmark import best_rate, has_bfloat16
from peewit.training.budget.frontier import by_images
from peewit.training.budget.pace import Pace
from peewit.training.budget.plan import FEWEST_STEPS, Budget, Ending, Plan, make_plan
from peewit.training.budget.planner import Choice, choose, sentence
from peewit.training.budget.rounds import Round, next_round, not_reached
from peewit.training.budget.threads import Threads
from peewit.training.checkpoint import Position
from peewit.training.environment import isolated
from peewit.training.recipe import AUTO, Recipe
from peewit.training.schedules import Schedule

_NO_ENDING = Ending(test=0.0, augmentation=0.0, rest=0.0)


@dataclass
class Course:
    """The schedules of one training, one after the other, and what its end has time for.

    Parameters
    ----------
    recipe : Recipe
        As it was chosen.
    note : callable
        Told in sentences what the plan is.
    best_rate : float, optional
        The most operations a second that were measured on this machine.
    choice : Choice, optional
        What else was measured; not needed by a recipe that counts epochs.
    began : float
        When the time of this sitting began, on ``now``.
    now : callable
        Returns seconds.
    """

    recipe: Recipe
    note: Callable[[str], None]
    best_rate: float | None = None
    choice: Choice | None = None
    began: float = 0.0
    now: Callable[[], float] = time.perf_counter
    given_up: str = field(init=False, default="")
    _pace: Pace | None = field(init=False, default=None)
    _threads: Threads = field(init=False)

    def __post_init__(self) -> None:
        self._threads = Threads(self.recipe.threads or 1, torch.set_num_threads)

    @classmethod
    def measured(
        cls,
        dataset: Dataset,
        test: Dataset | None,
        recipe: Recipe,
        began: float,
        note: Callable[[str], None],
        now: Callable[[], float] = time.perf_counter,
        *,
        settled: bool = False,
    ) -> Course:
        """Return the course of a training that is about to begin or go on.

        This machine is measured for it where the recipe has a budget, and its best rate for any
        recipe of the fast family. One that goes on is ``settled``: it keeps its recipe.

        Raises
        ------
        PeewitError
            The images are of one class, or fewer than the classes.
        """
        _check_learnable(dataset)
        if recipe.epochs is not None and recipe.model == AUTO:
            recipe = recipe.replace(model=by_images(recipe.epochs * len(dataset)))
        if recipe.by_epochs and find(recipe.model).family != "fast":
            return cls(recipe, note, began=began, now=now)
        with isolated(recipe.threads or 1), freed_memory_kept():
            if recipe.by_epochs:
                # not taken by itself: the same recipe and seed are to give the same weights
                if recipe.precision == "float32" and has_bfloat16() and not settled:
                    note(
                        "this processor multiplies bfloat16 itself: with that precision the "
                        "training may take much less time"
                    )
                return cls(recipe, note, best_rate(), began=began, now=now)
            left = None
            if recipe.minutes is not None:
                left = 60 * recipe.minutes - (now() - began)
            choice = choose(dataset, test, recipe, left, now, settled=settled)
            return cls(choice.recipe, note, choice.best_rate, choice, began, now)

    def schedules(self, position: Position, images: int) -> Iterator[Schedule | None]:
        """Give the schedules to train by; None for the recipe's epochs.

        Parameters
        ----------
        position : Position
            Where the training stands, which is looked at again after each schedule.
        images : int
            Training images.

        Raises
        ------
        UsageError
            The time is too short for any training.
        """
        if self.recipe.until_accuracy is not None:
            yield from self._rounds(position, images, self.recipe.until_accuracy)
        elif self.recipe.minutes is not None:
            budget = self._budget(position)
            plan = self._plan(budget, position, images)
            self.note(sentence(plan, self.recipe, budget))
            # with more minutes than before, what was the end no longer is
            begun = min(position.share, position.spent / budget.seconds)
            self._pace = Pace(budget, plan, begun, threads=self._threads)
            yield self._pace
        else:
            yield None

    def check(self, images: int) -> None:
        """Raise UsageError if the time is too short to begin a training on so many images."""
        if self.recipe.minutes is not None:
            self._plan(self._budget(Position()), Position(), images)

    def augmentation_fits(self, seconds: float) -> bool:
        """Tell whether test-time augmentation has time after a plain test of ``seconds``."""
        if self.recipe.minutes is None or self._pace is None:
            return True
        fits = self._pace.augmentation_fits(seconds)
        if not fits and self._pace.plan.augmented:
            self.note("no time is left for test-time augmentation: it is left out")
        return fits

    def report_fits(self) -> bool:
        """Tell whether there is time for the report."""
        if self.recipe.minutes is None or self.choice is None or self._pace is None:
            return True
        ending, budget = self.choice.ending, self._pace.budget
        return ending.report * self._pace.python_slowdown <= budget.left + 1.0

    def _measured(self) -> Choice:
        assert self.choice is not None, "a recipe with a budget needs to be measured"
        return self.choice

    def _budget(self, position: Position) -> Budget:
        # what earlier sittings took counts
        minutes = self.recipe.minutes or float("inf")
        return Budget(60 * minutes, self.began - position.spent, self.now)

    def _plan(self, budget: Budget, position: Position, images: int) -> Plan:
        choice = self._measured()
        return make_plan(
            *(budget, choice.speed, choice.ending, images, self.recipe.tta),
            fewest=0 if position.seen else FEWEST_STEPS,
            trained=position.spent,
        )

    def _rounds(self, position: Position, images: int, target: float) -> Iterator[Schedule]:
        choice, bound = self._measured(), self._budget(position)
        rate = choice.speed.flops / choice.speed.step
        rounds = [Round(*done) for done in position.rounds]
        # a training that goes on has had some of its last round, or all of it
        before, begun = position.spent - position.round_began, position.share
        if position.history and begun >= 1:
            # after its end a sitting has its own tries: those before may have been given up
            rounds = [Round(before, _accuracy(position))]
            before = begun = 0.0
        if position.history and _accuracy(position) >= target:
            return
        while (seconds := next_round(target, rounds, rate)) is not None:
            budget = Budget(max(seconds - before, 0.0), self.now(), self.now)
            plan = replace(
                make_plan(budget, choice.speed, _NO_ENDING, images, fewest=0),
                augmented=self.recipe.tta,
            )
            if self.recipe.minutes is not None:
                last = self._plan(bound, position, images)
                if last.training <= plan.training:
                    budget, plan = bound, last
            self.note(
                f"{'training' if not rounds else 'going on'} until {target:.1%} of held-out "
                f"images are right: {self.recipe.model}, about {duration(plan.training)}"
            )
            position.rounds = [list(done) for done in rounds]
            position.round_began = position.spent - before
            position.validated = 0.0
            started = self.now()
            self._pace = Pace(budget, plan, begun, target, self._threads)
            yield self._pace
            rounds.append(Round(self.now() - started + before, _accuracy(position)))
            if rounds[-1].accuracy >= target:
                if self.recipe.minutes is not None:  # what comes now has all that is left of them
                    self._pace = Pace(bound, self._plan(bound, position, images), begun)
                return
            if budget is bound:
                self.given_up = f"the time is over ({self.recipe.minutes:g} min)"
                return
            before = begun = 0.0
        self.given_up = f"{len(rounds)} rounds of training did not reach it"

    def failure(self, position: Position, go_on: str) -> PeewitError:
        """Return the error of an accuracy that was not reached."""
        why = f"{self.given_up}, and {_accuracy(position):.1%} are; everything is saved"
        return not_reached(self.recipe.until_accuracy or 1.0, why, go_on)


def _check_learnable(dataset: Dataset) -> None:
    names, found = dataset.class_names, np.unique(dataset.labels)
    if len(dataset) < len(names):
        raise PeewitError(
            f"{len(dataset):,} training images are too few for {len(names):,} classes",
            "each class needs at least one",
        )
    if len(found) < 2:
        raise PeewitError(
            f"all training images are of the class {names[found[0]]!r}",
            "there is nothing to tell apart",
            "give images of another class too",
        )


def _accuracy(position: Position) -> float:
    return position.history[-1]["validation_accuracy"]
