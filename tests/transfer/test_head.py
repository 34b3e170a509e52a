"""The layer on the features agrees with scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from peewit.data.dataset import Dataset
from peewit.transfer import head
from peewit.transfer.head import fit_head


def made(
    count: int, width: int, classes: int = 3, noise: float = 1.0
) -> tuple[np.ndarray, Dataset]:
    """Return features around a centre for each class, on very different scales."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % classes
    features = random.normal(size=(classes, width))[labels] + noise * random.normal(
        size=(count, width)
    )
    features = (features * np.logspace(-2, 2, width) + 5).astype(np.float32)
    images = np.zeros((count, 1, 1, 3), np.uint8)
    return features, Dataset(images, labels, [str(label) for label in range(classes)])


# more pictures than features, and fewer
@pytest.mark.parametrize(("count", "width"), [(120, 20), (60, 200)])
@pytest.mark.parametrize("strength", [0.01, 0.3])
def test_the_layer_is_that_of_scikit_learn(
    count: int, width: int, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "STRENGTHS", (strength,))
    features, dataset = made(count, width)
    found = fit_head(features, dataset)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    known = LogisticRegression(C=strength, max_iter=5_000, tol=1e-8).fit(scaled, dataset.labels)
    logits = (torch.from_numpy(features) @ found.weight.T + found.bias).numpy()
    wanted = known.decision_function(scaled)
    # logits are determined up to a constant for each picture
    differences = (logits - logits.mean(1, keepdims=True)) - (
        wanted - wanted.mean(1, keepdims=True)
    )
    assert np.abs(differences).max() < 0.02 * np.abs(wanted).max()


def test_noisier_features_are_regularised_more() -> None:
    clear, noisy = (fit_head(*made(150, 40, noise=noise)) for noise in (0.3, 4.0))
    assert noisy.strength < clear.strength
    assert min(noisy.losses, key=lambda strength: noisy.losses[strength]) == noisy.strength


def test_groups_stay_in_one_fold() -> None:
    features, dataset = made(60, 40, noise=8.0)
    # every picture three times: only a cross-validation that keeps copies together notices that
    # nothing was learned
    copies = np.repeat(np.arange(60), 3)
    tripled = dataset.take(copies)
    leaking = fit_head(features[copies], tripled)
    honest = fit_head(features[copies], tripled.grouped(copies))
    assert min(honest.losses.values()) > min(leaking.losses.values()) + 0.2


def test_weighted_classes_are_predicted_more_often() -> None:
    features, dataset = made(150, 5, noise=4.0)
    plain = fit_head(features, dataset)
    weighted = fit_head(features, dataset, torch.tensor([5.0, 1.0, 1.0]))
    shares = [
        float(
            ((torch.from_numpy(features) @ one.weight.T + one.bias).argmax(1) == 0).double().mean()
        )
        for one in (plain, weighted)
    ]
    assert shares[1] > shares[0] + 0.1


def test_one_picture_a_class_is_enough() -> None:
    features, dataset = made(3, 10, noise=0.0)
    found = fit_head(features, dataset)
    logits = torch.from_numpy(features) @ found.weight.T + found.bias
    assert logits.argmax(1).tolist() == [0, 1, 2]
    assert found.losses == {}


def test_the_same_features_give_the_same_layer() -> None:
    one, two = (fit_head(*made(90, 30)) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)
