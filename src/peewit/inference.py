"""From images to logits, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.preprocessing import Preprocessing


def logits_in_batches(
    model: nn.Module,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
    batch_size: int,
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
    model.eval()
    for first in range(0, len(images), batch_size):
        # not around the loop: the mode would leak to whoever consumes this iterator
        with torch.inference_mode():
            logits = model(preprocessing.tensor(images[first : first + batch_size]))
        yield logits.numpy()
