from __future__ import annotations

import sys

import numpy as np
import pytest

from peewit.data import digits, load
from peewit.errors import PeewitError


def test_the_images_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    train, test = digits.load()
    pixels, labels = load_digits(return_X_y=True)
    ours = np.concatenate([train.images, test.images]).reshape(-1, 64)
    # scaled from 0..16 to 0..255: scaling back and rounding restores the original
    back = np.rint(ours / (255 / 16))
    order, theirs = np.lexsort(back.T), np.lexsort(pixels.T)
    np.testing.assert_array_equal(back[order], pixels[theirs])
    counts = train.class_counts + test.class_counts
    np.testing.assert_array_equal(counts, np.bincount(labels.astype(int)))


def test_the_split_is_stratified_and_fixed() -> None:
    train, test = digits.load()
    assert (len(train), len(test)) == (1438, 359)
    assert train.class_names == tuple("0123456789")
    share = test.class_counts / (train.class_counts + test.class_counts)
    assert share.min() > 0.19
    assert share.max() < 0.21
    # so that accuracies can be compared across versions
    assert test.labels[:10].tolist() == [5, 9, 2, 4, 6, 7, 9, 3, 4, 6]


def test_without_scikit_learn_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PeewitError, match=r"pip install 'peewit\[digits\]'"):
        load("digits")
