"""Find outliers: pictures unlike all others, such as an icon or a page of text among photographs.

A picture is described by its layout, edges and colours at a low resolution, and is as much of an
outlier as it is far from its k-th nearest neighbour (Ramaswamy et al., Efficient algorithms for
mining outliers from large data sets, 2000).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.store import Images

Floats = npt.NDArray[Any]  # float32

# A picture with more pictures like it is no outlier
NEIGHBOURS = 8
# Fewer pictures do not show what is usual
FEWEST = 50
# Pictures that the others are compared with: the time grows with their number times all pictures
REFERENCES = 5000
# How far the logarithm of the distance may be above its median, in units of the upper half of its
# spread (from the median to the quantile 0.84, a standard deviation if it is normal). Of six sets
# of photographs it names 0.2 to 0.9 % of the pictures, and 2 % of Caltech-101, which has drawings.
# Of icons, text, colour charts and screenshots put into the sets, 52 to 100 % of each kind are
# found, but in Caltech-101, which has similar ones, 84, 0, 100 and 8 %. Photographs of other things
# are found where all pictures look alike (hands on white), and hardly in varied sets.
FURTHEST = 2.75
# Principal components of the thumbnails
COMPONENTS = 16
# Standardised numbers are limited to this, so that a single one does not decide
LIMIT = 8.0
# How much each part of the description counts
WEIGHTS = {
    "layout": 1.0,
    "edges": 1.0,
    "directions": 0.5,
    "levels": 0.7,
    "chroma": 0.7,
    "average": 0.7,
}
# Pictures described together: some 50 MB of temporary arrays
_AT_ONCE = 256
_DISTANCES_AT_ONCE = 1024


def outliers(images: Images) -> dict[int, float]:
    """Return the pictures that are unlike all others.

    Parameters
    ----------
    images : uint8 Images, shape (N, 64, 64, 3)
        Of another size, the height and width must be multiples of 8.

    Returns
    -------
    dict of int to float
        By index, how many times as far as usual each outlier is from its nearest neighbours.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> noise = random.integers(0, 256, (200, 64, 64, 3)).astype(np.uint8)
    >>> noise[7, 16:48] = 255
    >>> max(outliers(noise).items(), key=lambda found: found[1])[0]
    7
    """
    if len(images) < FEWEST:
        return {}
    distances = np.log(_distances(_described(images)) + 1e-6)
    median, upper = np.quantile(distances, (0.5, 0.84))
    found = np.flatnonzero(distances > median + FURTHEST * max(upper - median, 1e-3))
    return {int(row): float(np.exp(distances[row] - median)) for row in found}


def _described(images: Images) -> Floats:
    """Return a description of each image, shape (N, D); about 1 is its distance to the centre."""
    parts = [
        _parts(np.asarray(images[start : start + _AT_ONCE]))
        for start in range(0, len(images), _AT_ONCE)
    ]
    found = []
    for name, weight in WEIGHTS.items():
        values = _standardised(np.concatenate([part[name] for part in parts]))
        if name == "layout":
            _, vectors = np.linalg.eigh(values.T @ values)
            values = values @ vectors[:, -COMPONENTS:]
        found.append(weight * values / max(float(np.sqrt(values.var(0).sum())), 1e-6))
    return np.concatenate(found, axis=1).astype(np.float32)


def _parts(pixels: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    count = len(pixels)
    rgb = pixels.astype(np.float32)
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    blue, red = 0.564 * (rgb[..., 2] - luma), 0.713 * (rgb[..., 0] - luma)
    across, down = np.diff(luma, axis=2)[:, :-1], np.diff(luma, axis=1)[:, :, :-1]
    edges = np.hypot(across, down)
    bins = (np.arctan2(down, across) % np.pi * (8 / np.pi)).astype(np.int64) % 8
    each = np.arange(count)[:, None, None]
    directions = np.bincount((8 * each + bins).ravel(), edges.ravel(), 8 * count).reshape(count, 8)
    levels = np.bincount((16 * each + luma.astype(np.int64) // 16).ravel(), minlength=16 * count)
    planes = (luma, blue, red)
    average = [plane.mean((1, 2)) for plane in planes] + [plane.std((1, 2)) for plane in planes]
    return {
        "layout": np.concatenate([_reduced(luma, 8), _reduced(blue, 4), _reduced(red, 4)], axis=1),
        "edges": _quantiles(edges, (0.1, 0.25, 0.5, 0.75, 0.9, 0.98)),
        "directions": np.sqrt(directions / (directions.sum(1, keepdims=True) + 1e-3)),
        "levels": np.sqrt(levels.reshape(count, 16) / luma[0].size),
        "chroma": _quantiles(np.hypot(blue, red), (0.1, 0.5, 0.9)),
        "average": np.stack(average, axis=1),
    }


def _reduced(plane: Floats, side: int) -> Floats:
    count, height, width = plane.shape
    blocks = plane.reshape(count, side, height // side, side, width // side)
    means: Floats = blocks.mean((2, 4))
    return means.reshape(count, -1)


def _quantiles(values: Floats, shares: tuple[float, ...]) -> Floats:
    flat = np.sort(values.reshape(len(values), -1)[:, ::3], axis=1)
    chosen: Floats = flat[:, [int(share * (flat.shape[1] - 1)) for share in shares]]
    return np.log1p(chosen)


def _standardised(values: Floats) -> Floats:
    centred = values - np.median(values, axis=0)
    # the median absolute deviation, which is 0 for a number that is the same in most pictures
    spread = 1.4826 * np.median(np.abs(centred), axis=0) + 0.1 * values.std(axis=0) + 1e-6
    limited: Floats = np.clip(centred / spread, -LIMIT, LIMIT)
    return limited


def _distances(described: Floats) -> Floats:
    """Return the distance of each picture to its k-th nearest neighbour, shape (N,)."""
    count = len(described)
    rows = np.arange(count)
    if count > REFERENCES:
        rows = np.sort(np.random.default_rng(0).choice(count, REFERENCES, replace=False))
    references = described[rows]
    squares = (described * described).sum(1)
    found = np.empty(count, np.float32)
    for start in range(0, count, _DISTANCES_AT_ONCE):
        end = min(start + _DISTANCES_AT_ONCE, count)
        squared = squares[start:end, None] + squares[rows] - 2 * described[start:end] @ references.T
        # a picture is not its own neighbour
        own = np.flatnonzero((rows >= start) & (rows < end))
        squared[rows[own] - start, own] = np.inf
        nearest = np.partition(squared, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
        found[start:end] = np.sqrt(nearest.clip(0))
    return found
