"""Which network suits which budget: measured numbers only. No PyTorch here.

They come from single runs with one seed each; benchmarks/networks.py measures them again. All
accuracies are on images held out of CIFAR-10's training set (45,000 images to train on), without
test-time augmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A network, and the length of training from which it pays off.

    Parameters
    ----------
    model : str
        Its name in ``peewit.models.registry.MODELS``.
    images : float
        The number of training images from which it is better than the next smaller network.
    """

    model: str
    images: float


# From small to large. 30 s of training on two cores with AVX-512: fast-xs reaches
# 79.0 % after 62,000 images, fast-s 79.4 % after 40,000. 100 s: fast-m 83.8 % after 94,000, fast-l
# 83.5 % after 51,000. 275 s in bfloat16: fast-m 87.9 % after 399,000, fast-l 88.7 % after 205,000.
# fast-l reaches 89.6 % after 405,000; fast-xl, in a third more time, 90.3 % after 225,000, and
# 91.3 % after 450,000. The planner counts the whole time, a tenth of which is not training.
NETWORKS = (
    Entry("fast-xs", 0),
    Entry("fast-s", 35_000),
    Entry("fast-m", 90_000),
    Entry("fast-l", 120_000),
    Entry("fast-xl", 250_000),
)

# Input sizes for photographs, whose networks have half the resolution of the input, and how often a
# larger one must see each picture to be better.
SIZES, PASSES = (64, 96, 128), 40

# The best network for each amount of training: operations (2 per multiply-add), and its error on
# held-out images.
ERRORS = (
    (8.0e12, 0.206),
    (3.2e13, 0.162),
    (8.9e13, 0.129),
)


def by_images(images: float) -> str:
    """Return the name of the network for a run that trains on ``images`` images.

    >>> by_images(1_000), by_images(1e9)
    ('fast-xs', 'fast-xl')
    """
    return [entry.model for entry in NETWORKS if entry.images <= images][-1]


def picture_size(passes: float) -> int:
    """Return the input size in pixels for photographs.

    Parameters
    ----------
    passes : float
        How often the budget allows to train on each picture at the smallest size.

    Examples
    --------
    >>> picture_size(3), picture_size(100), picture_size(1_000)
    (64, 96, 128)
    """
    able = [size for size in SIZES if passes * (SIZES[0] / size) ** 2 >= PASSES]
    return max(able, default=SIZES[0])


def grid_size(image_size: int | None) -> int:
    """Return the resolution at which a network for photographs computes, in pixels.

    >>> grid_size(None), grid_size(128), grid_size(48)
    (32, 64, 48)
    """
    size = image_size or SIZES[0]
    return size // 2 if size >= SIZES[0] else size


def needed_flops(error: float) -> float:
    """Return how many operations of training it takes to reach the error ``error``.

    The error is interpolated, and extrapolated, as a power of the operations.

    >>> f"{needed_flops(0.162):.1e}"
    '3.2e+13'
    """
    # the two points to interpolate between; their errors decrease
    after = sum(share > error for _, share in ERRORS)
    first = min(max(after, 1), len(ERRORS) - 1) - 1
    (a, left), (b, right) = ((math.log(f), math.log(e)) for f, e in ERRORS[first : first + 2])
    return math.exp(a + (b - a) * (math.log(error) - left) / (right - left))
