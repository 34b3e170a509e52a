"""Relative Mahalanobis distance: how unlike all classes the features of a picture are.

The features of each class are taken as normally distributed around its mean, with one covariance
for all classes. The squared Mahalanobis distance to the nearest mean [1]_ minus that to the mean of
all images [2]_ is large for pictures of no class. The covariances are shrunk towards a multiple of
the identity, because there are often fewer images than features.

References
----------
.. [1] K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
   Adversarial Attacks", NeurIPS 2018 (arXiv 1807.03888), section 2.1.
.. [2] J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
   arXiv 2106.09022, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SHRINKAGE = 0.1  # share of the identity in the covariances, as in benchmarks/strangers.py
CONSTANT = 1e-6  # the standard deviation of a feature that does not vary is smaller


@dataclass(frozen=True)
class ClassDistances:
    """The distributions of the features of a training set.

    Parameters
    ----------
    mean, scale : float32 array, shape (F,)
        Mean and standard deviation of each feature.
    within, overall : float32 array, shape (F, F)
        Standardised features times these have a covariance of the identity: within the classes,
        and that of all images.
    centres : float32 array, shape (classes, F)
        The mean of each class that has images, times ``within``.
    """

    mean: Floats
    scale: Floats
    within: Floats
    overall: Floats
    centres: Floats

    @classmethod
    def fit(cls, features: Floats, labels: npt.NDArray[np.int64]) -> ClassDistances:
        """Return the distributions of ``features``, (N, F), of images with ``labels``, (N,)."""
        mean, scale = features.mean(0), features.std(0)
        scale = np.where(scale < CONSTANT, np.float32(1), scale)
        x = (features - mean) / scale
        present, which = np.unique(labels, return_inverse=True)
        means = np.stack([x[labels == label].mean(0) for label in present])
        within, overall = _whitening(x - means[which]), _whitening(x)
        return cls(mean, scale, within, overall, means @ within)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Floats]) -> ClassDistances:
        """Return what ``to_tensors`` has returned.

        Raises
        ------
        ValueError
            An array is missing, or its shape does not fit.
        """
        try:
            found = cls(**{field.name: tensors[field.name] for field in fields(cls)})
        except KeyError as error:
            raise ValueError(f"it has no {error.args[0]}") from error
        count = found.mean.size
        shapes = [found.mean.shape, found.scale.shape, found.within.shape, found.overall.shape]
        wanted = [(count,), (count,), (count, count), (count, count)]
        if shapes != wanted or found.centres.shape != (len(found.centres), count):
            raise ValueError("its arrays do not fit together")
        return found

    def to_tensors(self) -> dict[str, Floats]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def scores(self, features: Floats) -> Floats:
        """Return minus the relative distance, (N, F) -> float32 (N,): low for pictures of no class.

        >>> features = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
        >>> features[50:, 0] += 20  # two classes
        >>> distances = ClassDistances.fit(features, np.arange(100) // 50)
        >>> own, between = distances.scores(np.array([[20, 0], [10, 0]], np.float32))
        >>> bool(own > between)
        True
        """
        x = (features - self.mean) / self.scale
        inside = x @ self.within
        squares = (inside**2).sum(1)[:, None] + (self.centres**2).sum(1)
        nearest = (squares - 2 * inside @ self.centres.T).min(axis=1)
        found: Floats = ((x @ self.overall) ** 2).sum(1) - nearest
        return found


def _whitening(x: Floats) -> Floats:
    """Return the matrix whose product with ``x``, (N, F), has a covariance of the identity."""
    covariance = x.T.astype(np.float64) @ x / len(x)
    size = len(covariance)
    covariance *= 1 - SHRINKAGE
    covariance[np.arange(size), np.arange(size)] += max(
        SHRINKAGE * np.trace(covariance) / (1 - SHRINKAGE) / size, CONSTANT
    )
    inverse = np.linalg.inv(np.linalg.cholesky(covariance)).T
    found: Floats = inverse.astype(np.float32)
    return found
