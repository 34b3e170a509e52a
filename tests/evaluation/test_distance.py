"""Features far from all classes have a lower score than those of the classes."""

from __future__ import annotations

import numpy as np
import pytest

from peewit.evaluation.distance import ClassDistances


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = random.normal(size=(count, 8)).astype(np.float32)
    features[np.arange(count), labels] += 12
    return features, labels


@pytest.mark.parametrize("count", [6, 300])  # also fewer images than features
def test_strangers_have_lower_scores(count: int) -> None:
    distances = ClassDistances.fit(*made(count))
    own = distances.scores(made(60, 1)[0])
    strange = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    assert np.median(own) > np.quantile(distances.scores(strange), 0.9)


def test_arrays_are_restored_and_checked() -> None:
    features, labels = made(60)
    features[:, 7] = 5  # a feature that does not vary
    distances = ClassDistances.fit(features, labels)
    tensors = distances.to_tensors()
    again = ClassDistances.from_tensors(tensors)
    assert np.array_equal(again.scores(features), distances.scores(features))
    assert np.isfinite(distances.scores(features)).all()
    with pytest.raises(ValueError, match="fit"):
        ClassDistances.from_tensors(tensors | {"mean": tensors["mean"][:-1]})
    del tensors["centres"]
    with pytest.raises(ValueError, match="centres"):
        ClassDistances.from_tensors(tensors)
