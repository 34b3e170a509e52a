"""Align pairs of small grey pictures, to compare their details.

The second picture of a pair is moved and scaled in both directions, and its contrast and brightness
are adjusted, until it fits the first one best: Lucas and Kanade, An iterative image registration
technique with an application to stereo vision, 1981. Pairs are computed in batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]  # float32

# Gauss-Newton steps at half and at full resolution
COARSE_STEPS, FINE_STEPS = 6, 4
# Limits of a scale and of a shift, in half sides of the picture
SCALES = (0.8, 1.25)
FARTHEST = 0.2


def agreement(first: Floats, second: Floats) -> Floats:
    """Return how well the details of pairs of pictures agree after alignment.

    Parameters
    ----------
    first, second : float32 arrays, shape (n, side, side)
        Grey pictures, two by two; ``side`` is even.

    Returns
    -------
    float32 array, shape (n,)
        Correlation of what a Gaussian blur of 2 pixels removes, where the pictures overlap:
        1 for identical pictures, about 0 for different ones.

    Examples
    --------
    >>> picture = np.random.default_rng(0).random((1, 16, 16), np.float32)
    >>> agreement(picture, 5 + 2 * picture).round(3).tolist()
    [1.0]
    """
    first, second = _normalised(first), _normalised(second)
    # vertical scale and shift, horizontal scale and shift, contrast, brightness
    fit = np.tile(np.array([1, 0, 1, 0, 1, 0], np.float32), (len(first), 1))
    fit = _refined(_halved(blurred(first, 1)), _halved(blurred(second, 1)), fit, COARSE_STEPS)
    fit = _refined(first, second, fit, FINE_STEPS)
    moved, inside = _moved(second, fit)
    one, two = details(first) * inside, details(moved) * inside
    lengths = np.sqrt((one * one).sum((1, 2)) * (two * two).sum((1, 2)))
    agreed: Floats = (one * two).sum((1, 2)) / np.maximum(lengths, 1e-6)
    return agreed


def details(pictures: Floats) -> Floats:
    """Return what a Gaussian blur with a standard deviation of 2 pixels removes."""
    return pictures - blurred(pictures, 2)


def blurred(pictures: Floats, deviation: int) -> Floats:
    """Return pictures, (N, side, side), after a Gaussian blur; edges are repeated."""
    side = pictures.shape[1]
    offsets = np.arange(-3 * deviation, 3 * deviation + 1)
    weights = np.exp(-((offsets / deviation) ** 2) / 2)
    blur = np.zeros((side, side), np.float32)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        rows = np.arange(side)
        blur[rows, np.clip(rows + offset, 0, side - 1)] += weight
    result: Floats = blur @ pictures @ blur.T
    return result


def positions(side: int) -> Floats:
    """Return the centres of ``side`` pixels: 0 is the middle, -1 and 1 are the edges."""
    return ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)


def _refined(first: Floats, second: Floats, fit: Floats, steps: int) -> Floats:
    """Return a better fit, (n, 6), after some steps of Gauss-Newton."""
    count, side, _ = first.shape
    at = positions(side)
    damping = np.eye(6, dtype=np.float32) * (1e-3 * side * side)
    for _ in range(steps):
        moved, inside = _moved(second, fit)
        down, right = np.gradient(moved, 2 / side, axis=(1, 2))
        contrast, brightness = fit[:, 4, None, None], fit[:, 5, None, None]
        down *= contrast
        right *= contrast
        by = [down * at[:, None], down, right * at, right, moved, np.ones_like(moved)]
        derivatives = (np.stack(by, 1) * inside[:, None]).reshape(count, 6, -1)
        error = ((first - contrast * moved - brightness) * inside).reshape(count, -1, 1)
        normal = derivatives @ derivatives.transpose(0, 2, 1) + damping
        fit = fit + np.linalg.solve(normal, derivatives @ error)[:, :, 0]
        fit[:, [0, 2]] = np.clip(fit[:, [0, 2]], *SCALES)
        fit[:, [1, 3]] = np.clip(fit[:, [1, 3]], -FARTHEST, FARTHEST)
    return fit


def _moved(pictures: Floats, fit: Floats) -> tuple[Floats, Floats]:
    """Return scaled and shifted pictures, and 1 where they are known, 0 elsewhere."""
    side = pictures.shape[1]
    vertical, above = _interpolation(fit[:, 0], fit[:, 1], side)
    horizontal, beside = _interpolation(fit[:, 2], fit[:, 3], side)
    moved: Floats = vertical @ pictures @ horizontal.transpose(0, 2, 1)
    return moved, above[:, :, None] * beside[:, None, :]


def _interpolation(scale: Floats, shift: Floats, side: int) -> tuple[Floats, Floats]:
    """Return matrices of linear interpolation, (n, side, side), and which rows lie inside."""
    source = scale[:, None] * positions(side) + shift[:, None]
    inside = (np.abs(source) <= 1).astype(np.float32)
    pixels = np.clip((source + 1) * (side / 2) - 0.5, 0, side - 1)
    distances = np.abs(pixels[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(0, 1 - distances), inside


def _normalised(pictures: Floats) -> Floats:
    """Return pictures with mean 0 and standard deviation 1."""
    centred = pictures - pictures.mean((1, 2), keepdims=True)
    result: Floats = centred / np.maximum(centred.std((1, 2), keepdims=True), 1e-6)
    return result


def _halved(pictures: Floats) -> Floats:
    count, side, _ = pictures.shape
    result: Floats = pictures.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))
    return result
