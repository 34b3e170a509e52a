"""What a recipe leaves open until the length of its training is known. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peewit.training.recipe import Recipe

# the fields that may be open
BY_LENGTH = ("lr", "translate", "cutout")

# Muon's best rate for a training of so many steps, and the power of them by which it falls: found
# with single trainings of fast-m, on held-out images in six views. 1,043 steps: 0.06 89.0 %, 0.10
# 88.9 %, 0.17 87.6 %; 522 steps, of 500 images each: 0.10 88.7 %, 0.14 88.9 %, 0.24 88.4 %; 387
# steps: 0.10 85.7 %, 0.17 85.1 %.
STEPS, RATE, POWER = 400, 0.115, 0.3
HIGHEST_RATE = 0.24  # airbench94's


# From how many epochs on, how far to shift and how large a hole to cut, as shares of the side.
AUGMENTATIONS = ((0, 2 / 32, 0.0),)


def muon_rate(steps: float) -> float:
    """Return Muon's rate, in two digits, for a training of so many steps: long ones take less.

    >>> muon_rate(1), muon_rate(180), muon_rate(1_000), muon_rate(10_000)
    (0.24, 0.15, 0.087, 0.044)
    """
    return float(f"{min(RATE * (STEPS / max(steps, 1)) ** POWER, HIGHEST_RATE):.2g}")


def augmentation(epochs: float, side: int) -> tuple[int, int]:
    """Return how far to shift and how large a hole to cut, in pixels, in a training of ``epochs``.

    The longer it is, the more variety it needs, or it learns its images by heart.

    Parameters
    ----------
    epochs : float
    side : int
        Of the images, in pixels.

    Examples
    --------
    >>> augmentation(4, 32), augmentation(15, 32), augmentation(15, 8)
    ((2, 0), (4, 8), (1, 2))
    """
    shift, hole = next(parts for least, *parts in AUGMENTATIONS if epochs >= least)
    return max(1, round(shift * side)), round(hole * side)


def for_length(recipe: Recipe, images: float, count: int, side: int) -> Recipe:
    """Return ``recipe`` with all that it leaves open, as it suits the length of its training.

    Parameters
    ----------
    recipe : Recipe
    images : float
        How many images the training goes through, each of them counted each time.
    count : int
        How many different ones there are.
    side : int
        Their height or width in pixels, the smaller one, as the network reads them.

    Examples
    --------
    >>> for_length(Recipe.preset("fast"), 250_000, 50_000, 32).lr
    0.087
    """
    translate, cutout = augmentation(images / count, side)
    rate = muon_rate(images / recipe.batch_size)
    return filled(recipe, {"lr": rate, "translate": translate, "cutout": cutout})


def filled(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return ``recipe`` with those of ``values`` that it leaves open."""
    open_fields = [name for name in BY_LENGTH if getattr(recipe, name) is None]
    return recipe.replace(**{name: values[name] for name in open_fields})
