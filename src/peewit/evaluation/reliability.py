"""Calibration: expected calibration error and the bins of the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# as in Guo et al. 2017
BINS = 15


@dataclass(frozen=True)
class ConfidenceBin:
    """The images whose confidence is within one bin of the reliability diagram.

    ``confidence`` is the mean probability of the predicted class, ``accuracy`` the share of correct
    predictions, both 0 to 1; both are 0 if the bin has no ``images``.
    """

    images: int
    confidence: float
    accuracy: float


def calibration_error(
    confidences: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    bins: int = BINS,
) -> float:
    """Return the expected calibration error (ECE), 0 to 1.

    The mean absolute difference between confidence and accuracy over ``bins`` bins of equal width,
    weighted by the number of images in each. The confidence is the probability of the predicted
    class; bins are half-open, (low, high]. Source: C. Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017, equation 3.

    >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    place = _bin(confidences, bins)
    # |accuracy - confidence| of a bin times its share of the images: the bin's count cancels
    gaps = np.bincount(place, weights=correct - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def reliability(
    confidences: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    bins: int = BINS,
) -> tuple[ConfidenceBin, ...]:
    """Return confidence and accuracy in each bin of :func:`calibration_error`.

    >>> reliability(np.array([0.25, 0.75, 1.0]), np.array([True, False, True]), bins=2)[1]
    ConfidenceBin(images=2, confidence=0.875, accuracy=0.5)
    """
    place = _bin(confidences, bins)
    images = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidences, correct))
    confidence, accuracy = (values / np.maximum(images, 1) for values in sums)
    return tuple(
        ConfidenceBin(int(count), float(mean), float(share))
        for count, mean, share in zip(images, confidence, accuracy, strict=True)
    )


def _bin(confidences: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence; bins are (low, high]."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, confidences, side="left") - 1
    return np.clip(place, 0, bins - 1).astype(np.int64)
