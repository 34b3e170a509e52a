"""Data sets that are made up: of nothing but noise, or of pictures that can be told apart."""

from __future__ import annotations

import numpy as np

from peewit.data.dataset import Dataset


def noise(count: int, size: int, channels: int = 3, classes: int = 3, seed: int = 0) -> Dataset:
    """Return ``count`` square pictures that have nothing to do with their classes."""
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, size, size, channels), np.uint8)
    return Dataset(images, np.arange(count) % classes, [f"class {n}" for n in range(classes)])


def brightness(
    count: int, size: int, channels: int = 3, seed: int = 0, *, apart: int = 90, noise: int = 60
) -> Dataset:
    """Return ``count`` square pictures in three classes, each with its own brightness.

    The classes are ``apart`` from one another, and the pixels vary by ``noise``. With the defaults
    even one epoch of a small network can learn to tell them apart.
    """
    numbers = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    varying = numbers.integers(0, noise, (count, size, size, channels))
    images = (varying + labels[:, None, None, None] * apart).astype(np.uint8)
    names = ["dark", "middle", "bright"]
    return Dataset(images, labels, names, f"{count} made-up pictures")
