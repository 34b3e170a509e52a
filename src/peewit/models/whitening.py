"""Patch whitening: the filters of the fast networks' first layer, which is not trained."""

from __future__ import annotations

import torch
from torch.nn import functional as F

PATCH = 2  # height and width in pixels
# Regularisation, as in airbench94: bounds the filters of directions with hardly any variance.
EPSILON = 5e-4
_BATCH = 500  # images; the patches of 32 x 32 RGB images take 25 MB


def whitening_filters(images: torch.Tensor) -> torch.Tensor:
    """Return filters whose responses to the images' patches are uncorrelated with equal variance.

    They are the eigenvectors of the covariance matrix of all 2 x 2 patches, each divided by the
    square root of its eigenvalue, in descending order of the eigenvalues, followed by their
    negatives, so that the GELU after them loses neither sign [1]_ [2]_.

    Parameters
    ----------
    images : float32 tensor, shape (N, C, H, W)
        Preprocessed, as the network's input.

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
    >>> responses = F.conv2d(images, filters).transpose(0, 1).flatten(1)[:12]
    >>> bool(torch.allclose(responses @ responses.T / responses.shape[1], torch.eye(12), atol=0.02))
    True
    """
    channels = images.shape[1]
    size = channels * PATCH**2
    moment = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    for part in torch.split(images, _BATCH):
        patches = F.unfold(part, PATCH)  # (n, C, H, W) -> (n, C * 2 * 2, positions)
        flat = patches.transpose(0, 1).reshape(size, -1).double()  # -> (C * 2 * 2, n * positions)
        moment += flat @ flat.T
        count += flat.shape[1]
    # not centred, as in airbench94: the mean of normalised images is near 0
    values, vectors = torch.linalg.eigh(moment / count)  # ascending; vectors in columns
    scaled = vectors / torch.sqrt(values.clamp_min(0) + EPSILON)
    filters = scaled.T.flip(0).reshape(size, channels, PATCH, PATCH).float()
    # the sign of an eigenvector is arbitrary and varies between libraries: make its largest element
    # positive
    flat = filters.flatten(1)
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
    filters = filters * largest.sign()[:, :, None, None]
    return torch.cat((filters, -filters))
