"""What a recipe leaves open until its data and its length are known. No PyTorch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peewit.training.recipe import Recipe

# the fields that may be open
OPEN = ("lr", "translate", "skip_easy")

# Muon's best rate for a training of so many steps, and the power of them by which it falls: found
# with single trainings of fast-m, on held-out images in six views. 1,043 steps: 0.06 89.0 %, 0.10
# 88.9 %, 0.17 87.6 %; 522 steps, of 500 images each: 0.10 88.7 %, 0.14 88.9 %, 0.24 88.4 %; 387
# steps: 0.10 85.7 %, 0.17 85.1 %.
STEPS, RATE, POWER = 400, 0.115, 0.3
HIGHEST_RATE = 0.24  # airbench94's

# What trainings of so few epochs leave out of the images that are learned already. On held-out
# images in six views, with all images and without that quarter: 2 epochs of fast-s 84.3 and 84.9 %
# (two trainings each), 4 of fast-m 87.6 and 88.3 %; chosen anew at each pass, 4 of fast-l 88.9 and
# 89.8 %. 9 epochs of fast-l: 90.8 % with all, 90.3 % without half, chosen at each pass.
SKIP_EASY, FEW_EPOCHS = 0.25, 6


def muon_rate(steps: float) -> float:
    """Return Muon's rate, in two digits, for a training of so many steps: long ones take less.

    >>> muon_rate(1), muon_rate(180), muon_rate(1_000), muon_rate(10_000)
    (0.24, 0.15, 0.087, 0.044)
    """
    return float(f"{min(RATE * (STEPS / max(steps, 1)) ** POWER, HIGHEST_RATE):.2g}")


def shift(side: int) -> int:
    """Return by how many pixels to move images of ``side`` pixels: 2 of CIFAR-10's 32.

    >>> shift(32), shift(28), shift(12), shift(8)
    (2, 2, 1, 0)
    """
    return round(side / 16)


def skip_easy(epochs: float) -> float:
    """Return the share of the images that a training of so many epochs leaves out.

    >>> skip_easy(4.3), skip_easy(9)
    (0.25, 0.0)
    """
    return SKIP_EASY if epochs < FEW_EPOCHS else 0.0


def complete(recipe: Recipe, images: float, different: float, side: int) -> Recipe:
    """Return ``recipe`` with all that it leaves open, as it suits its training.

    Parameters
    ----------
    recipe : Recipe
    images : float
        How many images the training goes through, each of them counted each time.
    different : float
        How many different ones there are.
    side : int
        Their height or width in pixels, the smaller one, as they are changed in training.

    Examples
    --------
    >>> recipe = complete(Recipe.preset("fast"), 250_000, 50_000, 32)
    >>> recipe.lr, recipe.translate, recipe.skip_easy
    (0.087, 2, 0.25)
    """
    values = {
        "lr": muon_rate(images / recipe.batch_size),
        "translate": shift(side),
        "skip_easy": skip_easy(images / max(different, 1)),
    }
    return filled(recipe, values)


def bounded(recipe: Recipe, side: int, note: Callable[[str], None]) -> Recipe:
    """Return ``recipe`` with shifts of a quarter of the side at most, and holes of half of it.

    What suits photographs would leave nothing of small images.

    Parameters
    ----------
    recipe : Recipe
        With nothing left open.
    side : int
        Of the images, in pixels.
    note : callable
        Told in a sentence what was changed.
    """
    most = {"translate": side // 4, "cutout": side // 2}
    less = {name: most[name] for name in most if getattr(recipe, name) > most[name]}
    for name, pixels in less.items():
        note(f"{name} is {pixels} instead of {getattr(recipe, name)}, for the images are small")
    return recipe.replace(**less)


def filled(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return ``recipe`` with those of ``values`` that it leaves open."""
    return recipe.replace(**{name: values[name] for name in OPEN if getattr(recipe, name) is None})
