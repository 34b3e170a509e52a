"""Batch normalisation's moving statistics: whether they can be used, and estimating them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

# The number of images: 1,000 to 10,000 suffice for ImageNet [1, section 3.2].
IMAGES = 2_000
# At least this many images per batch: inference uses batches of this size, so they fit in memory.
BATCH = 64
# Of the epsilon that batch normalisation adds to the variance. The moving variance starts at 1.
# While the rest of that is not small compared with epsilon, it changes the result, because the
# variance of a feature may be of the same order.
NEGLIGIBLE = 0.01


def few_steps(model: nn.Module) -> bool:
    """Return whether moving statistics of ``model`` still contain much of their initial values.

    In each training step a layer with momentum m (in Keras's definition) keeps the share m of its
    statistics, so after n steps m^n of the initial values is left. That is too much if it exceeds
    a hundredth of the layer's epsilon: for fewer than 1,146 steps with Keras's momentum 0.99 and
    epsilon 0.001, and for fewer than 32 steps of the fast networks.

    Examples
    --------
    >>> norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
    >>> norm.num_batches_tracked.fill_(1145), few_steps(norm)
    (tensor(1145), True)
    >>> norm.num_batches_tracked.fill_(1146), few_steps(norm)
    (tensor(1146), False)
    """
    return any(
        norm.momentum is not None
        and (1 - norm.momentum) ** int(norm.num_batches_tracked or 0) > NEGLIGIBLE * norm.eps
        for norm in _norms(model)
    )


def estimate(
    model: nn.Module,
    prepare: Callable[[npt.NDArray[Any]], torch.Tensor],
    images: npt.NDArray[Any],
    batch_size: int = BATCH,
    before_batch: Callable[[], None] = lambda: None,
) -> int:
    """Replace the moving statistics of ``model`` by those of its present weights for ``images``.

    This is PreciseBN [1]_: each layer's moments in several batches, with the other layers (such as
    dropout) in evaluation mode, combined to those of all images. Up to 2,000 images are used,
    spread evenly over ``images``; no random numbers are. The model is left in evaluation mode.

    Parameters
    ----------
    model : Module
    prepare : callable
        Applied to each batch of images; returns the model's input, float32 (n, C, H, W).
    images : array, shape (N, H, W, C)
        Training images, not augmented, since predictions are made for images without augmentation.
    batch_size : int
        The training's. Batches have at least 64 images if there are as many.
    before_batch : callable
        Called before each batch; if it raises, the statistics are as before.

    Returns
    -------
    int
        The number of images used.

    References
    ----------
    .. [1] Y. Wu, J. Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, section 3.
    """
    norms = _norms(model)
    count = min(len(images), max(IMAGES, batch_size))
    chosen = np.linspace(0, len(images) - 1, count).astype(np.int64)
    batches = np.array_split(chosen, -(-count // max(batch_size, BATCH)))
    # float64: the variance is a difference of large numbers if the mean is large
    means = [torch.zeros(norm.num_features, dtype=torch.float64) for norm in norms]
    squares = [torch.zeros_like(mean) for mean in means]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    with restored(model), torch.no_grad():
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # so that the moving statistics are those of the last batch
        try:
            for batch in batches:
                before_batch()
                model(prepare(images[batch]))
                for norm, mean, square in zip(norms, means, squares, strict=True):
                    average, variance = _statistics(norm)
                    mean += average.double() * (len(batch) / count)
                    square += (variance + average.double() ** 2) * (len(batch) / count)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
    for norm, mean, square in zip(norms, means, squares, strict=True):
        average, variance = _statistics(norm)
        average.copy_(mean)
        variance.copy_((square - mean**2).clamp_(min=0))
    return count


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the moving statistics of ``model`` at the end of the block."""
    buffers = [buffer for norm in _norms(model) for buffer in norm.buffers()]
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.copy_(value)


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the layers with moving statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    ]


def _statistics(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
