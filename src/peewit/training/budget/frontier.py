"""Which network for which budget: measured numbers, and nothing else. No PyTorch here.

They come from single runs with one seed each; benchmarks/networks.py measures them again. All
accuracies are on images held out of CIFAR-10's training set (45,000 images to train on), without
test-time augmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A network and how long a training has to be to need it.

    Parameters
    ----------
    model : str
        Its name in ``peewit.models.registry.MODELS``.
    images : float
        How many images of training make it better than the next smaller network.
    """

    model: str
    images: float


# From small to large. 30 s of training on two cores with AVX-512: 62,000 images through fast-xs
# give 79.0 %, 40,000 through fast-s 79.4 %. 100 s: 94,000 through fast-m 83.8 %, 51,000 through
# fast-l 83.5 %. 275 s in bfloat16: 399,000 through fast-m 87.9 %, 205,000 through fast-l 88.7 %.
# 405,000 through fast-l give 89.6 %; 225,000 through fast-xl, in a third more time, 90.3 %, and
# 450,000 give 91.3 %. The planner counts the whole time, a tenth of which is not training.
NETWORKS = (
    Entry("fast-xs", 0),
    Entry("fast-s", 35_000),
    Entry("fast-m", 90_000),
    Entry("fast-l", 120_000),
    Entry("fast-xl", 250_000),
)

# What the best network for a budget reaches: training operations (2 per multiply-add) and the error
# on held-out images.
ERRORS = (
    (8.0e12, 0.206),
    (3.2e13, 0.162),
    (8.9e13, 0.129),
)


def by_images(images: float) -> str:
    """Return the name of the network for a training that goes through ``images`` images.

    >>> by_images(1_000), by_images(1e9)
    ('fast-xs', 'fast-xl')
    """
    return [entry.model for entry in NETWORKS if entry.images <= images][-1]


def needed_flops(error: float) -> float:
    """Return how many operations a training needs to reach the error ``error``.

    Between the measured points, and beyond them, the error is a power of the operations.

    >>> f"{needed_flops(0.162):.1e}"
    '3.2e+13'
    """
    # the two points to interpolate between; their errors decrease
    after = sum(share > error for _, share in ERRORS)
    first = min(max(after, 1), len(ERRORS) - 1) - 1
    (a, left), (b, right) = ((math.log(f), math.log(e)) for f, e in ERRORS[first : first + 2])
    return math.exp(a + (b - a) * (math.log(error) - left) / (right - left))
