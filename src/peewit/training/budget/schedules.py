"""The schedules of a run: its epochs, its minutes, or rounds until an accuracy is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from peewit.errors import PeewitError
from peewit.system.text import duration, minutes
from peewit.training.budget.pace import Pace
from peewit.training.budget.plan import FEWEST_STEPS, Budget, Ending, Measured, Plan, make_plan
from peewit.training.budget.planner import sentence
from peewit.training.budget.rounds import Round, next_round, not_reached
from peewit.training.budget.threads import Threads
from peewit.training.recipe import Recipe
from peewit.training.schedules import EpochSchedule, Schedule
from peewit.training.state import TrainState

_NO_ENDING = Ending(test=0.0, augmentation=0.0, rest=0.0)


@dataclass
class Schedules:
    """The schedules of one run, in order, and what there is time for at its end.

    Parameters
    ----------
    recipe : Recipe
        Resolved.
    images : int
        Training images.
    note : callable
        Called with sentences about the plan.
    measured : Measured, optional
        Needed by a recipe with a budget.
    began : float
        When this session began, on ``now``.
    now : callable
        Returns seconds.
    fewest : int
        The steps for which there must be time; with 0, a late start is no error.
    """

    recipe: Recipe
    images: int
    note: Callable[[str], None]
    measured: Measured | None = None
    began: float = 0.0
    now: Callable[[], float] = time.perf_counter
    fewest: int = FEWEST_STEPS
    given_up: str = field(init=False, default="")
    _pace: Pace | None = field(init=False, default=None)
    _threads: Threads = field(init=False)

    def __post_init__(self) -> None:
        begin = self.measured.threads if self.measured else None
        self._threads = Threads(self.recipe.threads or 1, torch.set_num_threads, begin)

    def each(self, state: TrainState) -> Iterator[Schedule]:
        """Yield the schedules to train by.

        Parameters
        ----------
        state : TrainState
            The state being trained; it is read again after each schedule.

        Raises
        ------
        UsageError
            The budget is too small for any training.
        """
        if self.recipe.head_only:
            return
        if not self.recipe.by_epochs:
            self._threads.begin()
        if self.recipe.until_accuracy is not None:
            yield from self._rounds(state, self.recipe.until_accuracy)
        elif self.recipe.minutes is not None:
            budget = self._budget(state)
            plan = self._plan(budget, state)
            self.note(sentence(plan, self.recipe, budget))
            # with a larger budget than before, a resumed run is further from its end
            begun = min(state.fraction_done, state.spent / budget.seconds)
            self._pace = Pace(budget, plan, begun, threads=self._threads)
            yield self._pace
        else:
            assert self.recipe.epochs is not None
            yield EpochSchedule(self.recipe.epochs, self.recipe.steps(self.images))

    def check(self) -> None:
        """Raise UsageError if the budget is too small to start training."""
        if self.recipe.minutes is not None and self.recipe.start == "scratch":
            self._plan(self._budget(TrainState()), TrainState())

    def decide_augmentation(self, seconds: float) -> bool:
        """Decide whether there is time for test-time augmentation after a test of ``seconds``."""
        if self.recipe.minutes is None or self._pace is None:
            return True
        fits = self._pace.decide_augmentation(seconds)
        if not fits and self._pace.plan.augmented:
            self.note("skipping test-time augmentation: no time left")
        return fits

    def decide_report(self) -> bool:
        """Decide whether there is time for the report."""
        if self.recipe.minutes is None or self._pace is None:
            return True
        return self._pace.decide_report()

    def failure(self, state: TrainState, todo: str) -> PeewitError:
        """Return the error for a target accuracy that was not reached."""
        why = f"{self.given_up} reached only {_accuracy(state):.1%}; everything is saved"
        return not_reached(self.recipe.until_accuracy or 1.0, why, todo)

    def _known(self) -> Measured:
        assert self.measured is not None, "a recipe with a budget needs measurements"
        return self.measured

    def _budget(self, state: TrainState) -> Budget:
        # the time of earlier sessions counts
        limit = self.recipe.minutes or float("inf")
        return Budget(60 * limit, self.began - state.spent, self.now)

    def _plan(self, budget: Budget, state: TrainState) -> Plan:
        known = self._known()
        return make_plan(
            *(budget, known.speed, known.ending, self.images, self.recipe.tta),
            fewest=0 if state.seen else self.fewest,
            trained=state.spent,
        )

    def _rounds(self, state: TrainState, target: float) -> Iterator[Schedule]:
        known, limit = self._known(), self._budget(state)
        rate = known.speed.flops / known.speed.step
        rounds = [Round(*done) for done in state.rounds]
        # a resumed run has completed its last round in part, or all of it
        before, begun = state.spent - state.round_began, state.fraction_done
        if state.history and begun >= 1:
            # a new session starts its own rounds: the earlier ones may have ended in failure
            rounds = [Round(before, _accuracy(state))]
            before = begun = 0.0
        if state.history and _accuracy(state) >= target:
            return
        while (seconds := next_round(target, rounds, rate)) is not None:
            budget = Budget(max(seconds - before, 0.0), self.now(), self.now)
            plan = replace(
                make_plan(budget, known.speed, _NO_ENDING, self.images, fewest=0),
                augmented=self.recipe.tta,
            )
            if self.recipe.minutes is not None:
                last = self._plan(limit, state)
                if last.training <= plan.training:
                    budget, plan = limit, last
            self.note(
                f"{'training' if not rounds else 'continuing'} until a validation accuracy of "
                f"{target:.1%}: {self.recipe.model}, about {duration(plan.training)}"
            )
            state.rounds = [list(done) for done in rounds]
            state.round_began = state.spent - before
            state.validated = 0.0
            started = self.now()
            self._pace = Pace(budget, plan, begun, target, self._threads)
            yield self._pace
            rounds.append(Round(self.now() - started + before, _accuracy(state)))
            if rounds[-1].accuracy >= target:
                if self.recipe.minutes is not None:  # the final test may use the rest
                    self._pace = Pace(limit, self._plan(limit, state), begun)
                return
            if budget is limit:
                self.given_up = f"training for {minutes(limit.seconds / 60)}"
                return
            before = begun = 0.0
        self.given_up = f"{len(rounds)} rounds of training"


def _accuracy(state: TrainState) -> float:
    return state.history[-1]["validation_accuracy"]
