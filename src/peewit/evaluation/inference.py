"""From images to logits, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

# The tutorial's activations of 64 images stay in the cache: 4,600 to 5,000 images a second on two
# cores, against 3,000 to 3,200 with 500 at once.
BATCH = 64

# The share of the pictures that is looked at in more than one view (test-time augmentation).
UNSURE = 0.25


def logits_in_batches(
    model: nn.Module,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
    batch_size: int = BATCH,
) -> Iterator[npt.NDArray[np.float32]]:
    """Give the logits of ``images``, ``batch_size`` of them at a time, in order.

    The model is put into evaluation mode and left there.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, C)
        Any size: ``preprocessing`` makes them what the model reads.

    Yields
    ------
    float32 array, shape (n, classes)
        n is ``batch_size``, and less at the end.
    """
    import torch

    model.eval()
    for first in range(0, len(images), batch_size):
        # not around the loop: the mode would leak to whoever consumes this iterator
        with torch.inference_mode():
            logits = model(preprocessing.tensor(images[first : first + batch_size]))
        yield logits.numpy()


def logits_unless(
    stop: Callable[[], bool],
    model: nn.Module,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
) -> npt.NDArray[np.float32] | None:
    """Return the logits of ``images``, (N, classes), or None if ``stop`` became true between."""
    parts = []
    for part in logits_in_batches(model, preprocessing, images):
        if stop():
            return None
        parts.append(part)
    return np.concatenate(parts)


def unsure_below(logits: npt.NDArray[np.float32]) -> float:
    """Return the confidence that a quarter of the pictures with these logits do not reach.

    Measured once, when a training has ended, and kept: so which pictures are looked at again, and
    what is said of them, does not depend on which others are asked about.

    Parameters
    ----------
    logits : float32 array, shape (N, classes)

    Examples
    --------
    >>> round(unsure_below(np.array([[0, 0], [0, 1], [0, 2], [0, 3], [0, 4]], np.float32)), 3)
    0.731
    """
    return float(np.quantile(softmax(logits).max(axis=1), UNSURE)) if len(logits) else 0.0


def second_looks(
    model: nn.Module,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    below: float,
    batch_size: int = BATCH,
    *,
    mirror: bool = True,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Look again, in up to five more views, at the images of which ``logits`` are least sure.

    The views are those of :func:`mixed_views`. For a quarter of the images that is 2.25 times the
    work of one view of each, where looking at all of them would be 6 times as much.

    Parameters
    ----------
    images : uint8 array, shape (N, H, W, C)
    logits : float32 array, shape (N, classes)
        What ``logits_in_batches`` gave for them.
    below : float
        Images whose most probable class has a probability under this are looked at again.
    mirror : bool
        Whether mirror images are among the views. Not for a network that was trained without
        them: a mirrored digit is no digit.

    Yields
    ------
    int64 array, shape (n,), and float32 array, shape (n, classes)
        The numbers of some of those images, and their better logits.
    """
    import torch

    def forward(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # (n, H, W, C) -> (n, C, H, W), the same memory
        x = np.ascontiguousarray(x)
        with torch.inference_mode():
            seen: npt.NDArray[np.float32] = model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
        return seen

    model.eval()
    unsure = np.flatnonzero(softmax(logits).max(axis=1) < below)
    for first in range(0, len(unsure), batch_size):
        chosen = unsure[first : first + batch_size]
        x = preprocessing.tensor(images[chosen]).permute(0, 2, 3, 1).numpy()
        yield chosen, mixed_views(forward, x, logits[chosen], mirror=mirror)


def mixed_views(
    forward: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    x: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    *,
    mirror: bool,
) -> npt.NDArray[np.float32]:
    """Return the logits of six views of images, mixed: test-time augmentation.

    The views are the image, its mirror image, and both shifted by a pixel, up and left, and down
    and right; the unshifted pair counts half, the others the other half [1]_.

    Parameters
    ----------
    forward : callable
        Prepared images (n, H, W, C) -> logits (n, classes).
    x : float32 array, shape (n, H, W, C)
        Prepared images.
    logits : float32 array, shape (n, classes)
        What ``forward`` gave for them.
    mirror : bool
        Whether mirror images are among the views.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498,
       section 3.5.
    """
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [padded[:, :height, :width], padded[:, 2:, 2:]]
    views = [x[:, :, ::-1]] if mirror else []
    for view in shifted:
        views += [view, view[:, :, ::-1]] if mirror else [view]
    seen = [logits, *_each(forward, views)]
    # view and mirror image, or the view twice
    pairs = [seen[at : at + 2] for at in (0, 2, 4)] if mirror else [[one, one] for one in seen]
    mixed: npt.NDArray[np.float32] = (pairs[0][0] + pairs[0][1]) * np.float32(0.25)
    for one, other in pairs[1:]:
        mixed += (one + other) * np.float32(0.125)
    return mixed


def _each(
    forward: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    views: list[npt.NDArray[np.float32]],
) -> list[npt.NDArray[np.float32]]:
    """Return what ``forward`` gives for each of ``views``: at once, if they are few images."""
    if len(views) * len(views[0]) > BATCH:
        return [forward(view) for view in views]
    return np.split(forward(np.concatenate(views)), len(views))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return each class's probability, float32, (N, classes) -> (N, classes).

    >>> softmax(np.array([[1000.0, 1000.0]], np.float32)).tolist()
    [[0.5, 0.5]]
    """
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares
