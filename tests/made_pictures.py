"""Folders of small picture files in class folders, made for a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 200), "green": (30, 190, 40), "red": (200, 30, 30)}


def folder_of_pictures(
    folder: Path, a_class: int, size: tuple[int, int] = (12, 16), seed: int = 0
) -> Path:
    """Make PNG files of noisy colours: ``a_class`` in each of three classes.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    a_class : int
        Files in each class folder, named ``0.png`` and so on.
    size : tuple of int
        Height and width.
    seed : int
    """
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(a_class):
            noise = random.integers(-20, 21, (*size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
