"""A machine that exists only here, and recipes resolved for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from peewit.data.dataset import Dataset
from peewit.training.budget.benchmark import Machine, measured_as
from peewit.training.budget.plan import Speed
from peewit.training.recipe import Recipe
from peewit.training.resolve import resolve

ORDER = ["fast-xs", "fast-s", "fast-m", "fast-l", "fast-xl", "tutorial"]


@dataclass
class MadeMachine(Machine):
    """Trains fast-xs in ``step`` seconds a step, and each larger network in twice the time.

    Parameters
    ----------
    bfloat16 : float
        How much faster bfloat16 is; 1 for a processor without it.
    cost : float
        The seconds that measuring a network takes.
    free : int
        The fastest number of threads at present.
    rates : tuple of float
        The best rates, in the order of the measurements; the last one repeats.
    """

    began: float = 0.0
    step: float = 0.1
    bfloat16: float = 1.0
    cost: float = 0.0
    free: int = 1
    rates: tuple[float, ...] = (1e11,)
    time: float = 0.0
    measured: list[tuple[str, str]] = field(default_factory=list)
    allowed: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = lambda: self.time
        self._rates = iter(self.rates)

    @property
    def threads(self) -> int:
        return 1

    def has_bfloat16(self) -> bool:
        return self.bfloat16 != 1

    @contextmanager
    def measuring(self, threads: int) -> Iterator[None]:
        yield

    def adapt_threads(self, threads: int) -> None:
        assert not self.measured, "measured with another number of threads"
        self.count = min(threads, self.free)

    def measure_rate(self, seconds: float = 0.9) -> float:
        self.best_rate = max(self.best_rate or 0.0, next(self._rates, self.rates[-1]))
        return self.best_rate

    def measure_speed(self, dataset: Dataset, recipe: Recipe, seconds: float) -> Speed:
        self.measured.append((recipe.model, recipe.precision))
        self.allowed.append(seconds)
        self.time += self.cost
        speed = self.made_speed(recipe)
        self._speeds[measured_as(recipe)] = speed
        return speed

    def made_speed(self, recipe: Recipe) -> Speed:
        step = self.step * 2 ** ORDER.index(recipe.model.removesuffix("/2"))
        if recipe.image_size and recipe.model.endswith("/2"):
            step *= (recipe.image_size / 64) ** 2
        if recipe.precision == "bfloat16":
            step /= self.bfloat16
        return Speed(
            model=recipe.model,
            batch_size=recipe.batch_size,
            step=step,
            inference=1e-4,
            flops=1e10,
        )

    def measure_python(self) -> float:
        return 0.01


def resolved(
    recipe: Recipe, data: Dataset, note: Callable[[str], None] = lambda sentence: None
) -> Recipe:
    """Return ``recipe`` resolved for ``data`` on a made machine with one thread."""
    return resolve(recipe, data, MadeMachine(), note)
