"""Synthetic data sets: random noise, or classes that a small network can learn."""

from __future__ import annotations

import numpy as np

from peewit.data.dataset import Dataset


def noise(count: int, size: int, channels: int = 3, classes: int = 3, seed: int = 0) -> Dataset:
    """Return ``count`` square images of random noise, with arbitrary labels."""
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (count, size, size, channels), np.uint8)
    return Dataset(images, np.arange(count) % classes, [f"class {n}" for n in range(classes)])


def brightness(
    count: int, size: int, channels: int = 3, seed: int = 0, *, apart: int = 90, noise: int = 60
) -> Dataset:
    """Return ``count`` square images of three classes that differ in brightness.

    The mean brightness of neighbouring classes differs by ``apart``, and the pixels vary by
    ``noise``. With the defaults, a small network learns them within an epoch.
    """
    numbers = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    varying = numbers.integers(0, noise, (count, size, size, channels))
    images = (varying + labels[:, None, None, None] * apart).astype(np.uint8)
    names = ["dark", "middle", "bright"]
    return Dataset(images, labels, names, f"{count} made-up pictures")
