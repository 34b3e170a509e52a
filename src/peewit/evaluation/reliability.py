"""Whether a classifier's confidence can be taken at its word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# As in Guo et al. 2017
BINS = 15


@dataclass(frozen=True)
class ConfidenceBin:
    """The images whose answer was given with a probability in one range.

    ``confidence`` is the mean probability of their answers, ``accuracy`` the share of them that
    is right, both 0 to 1; 0 where there are no ``images``.
    """

    images: int
    confidence: float
    accuracy: float


def calibration_error(
    confidences: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    bins: int = BINS,
) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy, 0 to 1.

    Images are put into ``bins`` equally wide bins, open below and closed above, by the
    probability of the predicted class; the distances are weighted with the images in each bin.
    Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    place = _bin(confidences, bins)
    # |accuracy - confidence| of a bin, times its share: the counts cancel
    gaps = np.bincount(place, weights=right - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def reliability(
    confidences: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    bins: int = BINS,
) -> tuple[ConfidenceBin, ...]:
    """Return confidence and accuracy in each of the bins of :func:`calibration_error`.

    >>> reliability(np.array([0.25, 0.75, 1.0]), np.array([True, False, True]), bins=2)[1]
    ConfidenceBin(images=2, confidence=0.875, accuracy=0.5)
    """
    place = _bin(confidences, bins)
    images = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidences, right))
    confidence, accuracy = (values / np.maximum(images, 1) for values in sums)
    return tuple(
        ConfidenceBin(int(count), float(sure), float(share))
        for count, sure, share in zip(images, confidence, accuracy, strict=True)
    )


def _bin(confidences: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence: equally wide, open below and closed above."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, confidences, side="left") - 1
    return np.clip(place, 0, bins - 1).astype(np.int64)
