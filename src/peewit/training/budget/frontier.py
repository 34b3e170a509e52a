"""Which network for which budget: measured numbers, and nothing else. No PyTorch here.

So far from single runs of one seed each; benchmarks/networks.py is there to measure them anew. All
accuracies are on images held out of CIFAR-10's training set (45,000 images to train on), without
test-time augmentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A network and when it is the right one.

    Parameters
    ----------
    model : str
        Its name in ``peewit.models.registry.MODELS``.
    images : float
        How many images it has to see in its training to be better than the network before it.
    """

    model: str
    images: float


# From small to large. 30 s of training on two cores with AVX-512: 62,000 images through fast-xs
# give 79.0 %, 40,000 through fast-s 79.4 %. 100 s: 94,000 through fast-m 83.8 %, 51,000 through
# fast-l 83.5 %. 275 s in bfloat16: 399,000 through fast-m 87.9 %, 205,000 through fast-l 88.7 %.
# 405,000 through fast-l are 89.6 %; 225,000 through fast-xl, in a third more time, 90.3 %, and
# 450,000 are 91.3 %. The planner counts all of the time, of which a tenth is no training.
NETWORKS = (
    Entry("fast-xs", 0),
    Entry("fast-s", 35_000),
    Entry("fast-m", 90_000),
    Entry("fast-l", 120_000),
    Entry("fast-xl", 250_000),
)

# What the best network for a budget reaches: training operations (2 a multiply-add) and the share
# of held-out images that it gets wrong.
ERRORS = (
    (8.0e12, 0.206),
    (3.2e13, 0.162),
    (8.9e13, 0.129),
)


def by_images(images: float) -> str:
    """Return the name of the network for a training that goes through so many images.

    >>> by_images(1_000), by_images(1e9)
    ('fast-xs', 'fast-xl')
    """
    return [entry.model for entry in NETWORKS if entry.images <= images][-1]


def needed_flops(error: float) -> float:
    """Return how many operations a training needs to get no more than ``error`` wrong.

    Between the measured points and beyond them error is a power of the operations.

    >>> f"{needed_flops(0.162):.1e}"
    '3.2e+13'
    """
    # the two measured points on whose line it is; their errors fall
    after = sum(share > error for _, share in ERRORS)
    first = min(max(after, 1), len(ERRORS) - 1) - 1
    (a, left), (b, right) = ((math.log(f), math.log(e)) for f, e in ERRORS[first : first + 2])
    return math.exp(a + (b - a) * (math.log(error) - left) / (right - left))
