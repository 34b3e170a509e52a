"""The handwritten digits that come with scikit-learn: 1,797 images of 8x8, no download."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from peewit.data.dataset import Dataset
from peewit.errors import PeewitError

TEST_SHARE = 0.2
# a fixed split, so that accuracies can be compared
SPLIT_SEED = 0


def load() -> tuple[Dataset, Dataset]:
    """Load the training and the test set (1,438 and 359 images), always the same split.

    Source: scikit-learn's ``load_digits``, the test part of Alpaydin and Kaynak, Optical
    Recognition of Handwritten Digits (UCI, 1998). Each pixel is the number of black pixels in a 4x4
    block of a scan, 0 to 16.

    Returns
    -------
    tuple of Dataset
        Grey images, uint8 (N, 8, 8, 1), scaled to 0 to 255; the split is stratified.

    Raises
    ------
    PeewitError
        scikit-learn is not installed.

    Examples
    --------
    >>> train, test = load()
    >>> train, int(train.images.max())
    (Dataset(1,438 images of 8 x 8 x 1, 10 classes), 255)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise PeewitError(
            "cannot load digits",
            "they come with scikit-learn, which is not installed",
            "install it with: pip install 'peewit[digits]'",
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    digits = Dataset(images, labels.astype(np.int64), [str(digit) for digit in range(10)])
    train, test = digits.split(TEST_SHARE, SPLIT_SEED)
    return (
        replace(train, origin="digits train, scikit-learn"),
        replace(test, origin="digits test, scikit-learn"),
    )
