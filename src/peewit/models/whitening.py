"""Filters that whiten the small patches of the images: a first layer that need not learn."""

from __future__ import annotations

import torch
from torch.nn import functional as F

PATCH = 2  # pixels each way
# As airbench94: keeps the filters of directions in which the patches hardly vary from growing.
EPSILON = 5e-4
_IMAGES_AT_ONCE = 500  # their patches take 25 MB for 32 x 32 RGB


def whitening_filters(images: torch.Tensor) -> torch.Tensor:
    """Return filters whose answers to the images' patches are uncorrelated and of equal size.

    They are the eigenvectors of the covariance of all 2 x 2 patches, each divided by the square
    root of its eigenvalue, the largest first; then the negatives of all of them, so that the GELU
    that follows loses neither sign [1]_ [2]_.

    Parameters
    ----------
    images : float32 tensor, shape (N, C, H, W)
        As the network reads them.

    Returns
    -------
    float32 tensor, shape (8 * C, C, 2, 2)

    References
    ----------
    .. [1] A. Coates, A. Ng, H. Lee, "An analysis of single-layer networks in unsupervised feature
       learning", AISTATS 2011 (whitening of patches).
    .. [2] K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498,
       section 3.2.

    Examples
    --------
    >>> images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> filters = whitening_filters(images)
    >>> answers = F.conv2d(images, filters).transpose(0, 1).flatten(1)[:12]
    >>> bool(torch.allclose(answers @ answers.T / answers.shape[1], torch.eye(12), atol=0.02))
    True
    """
    channels = images.shape[1]
    size = channels * PATCH**2
    moment = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    for part in torch.split(images, _IMAGES_AT_ONCE):
        patches = F.unfold(part, PATCH)  # (n, C, H, W) -> (n, C * 2 * 2, places)
        flat = patches.transpose(0, 1).reshape(size, -1).double()  # -> (C * 2 * 2, n * places)
        moment += flat @ flat.T
        count += flat.shape[1]
    # not centred, as airbench94: with normalised images the mean is near 0 anyhow
    values, vectors = torch.linalg.eigh(moment / count)  # ascending; vectors in the columns
    scaled = vectors / torch.sqrt(values.clamp_min(0) + EPSILON)
    filters = scaled.T.flip(0).reshape(size, channels, PATCH, PATCH).float()
    # an eigenvector's sign is arbitrary and differs between libraries: let its largest be positive
    flat = filters.flatten(1)
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
    filters = filters * largest.sign()[:, :, None, None]
    return torch.cat((filters, -filters))
