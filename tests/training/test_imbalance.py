"""The loss of imbalanced classes is weighted; that of balanced ones is unchanged, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from made_machine import MadeMachine, resolved
from peewit.data.dataset import Dataset
from peewit.training.build import build_setup
from peewit.training.imbalance import POWERS, WEIGHTED_FROM, choose_weights, loss_weights
from peewit.training.loop import cross_entropy
from peewit.training.recipe import Recipe
from peewit.training.resolve import resolve

XS = Recipe.preset("fast", model="fast-xs", epochs=2)


def data(*counts: int) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    return Dataset(pixels, labels, [f"class {number}" for number in range(len(counts))])


def quiet(sentence: str) -> None:
    return


def test_each_class_has_the_same_total_weight_and_the_mean_is_1() -> None:
    counts = np.array([100, 20, 5])
    weights = loss_weights(counts, 1)
    assert weights is not None
    assert weights.dtype == np.float32
    assert weights * counts == pytest.approx([125 / 3] * 3)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    roots = loss_weights(counts, 0.5)
    assert roots is not None
    assert (roots * counts).sum() / counts.sum() == pytest.approx(1)
    assert roots[2] / roots[1] == pytest.approx(2)


def test_a_class_without_images_changes_nothing() -> None:
    with_empty = loss_weights(np.array([100, 0, 20]), 1)
    without = loss_weights(np.array([100, 20]), 1)
    assert with_empty is not None
    assert without is not None
    assert with_empty[[0, 2]] == pytest.approx(without)
    assert np.isfinite(with_empty).all()
    assert loss_weights(np.array([7, 0, 7]), 1) is None


def test_auto_weights_imbalanced_classes_only() -> None:
    assert choose_weights(np.array([100, 100, 99])) == "none"
    small = int(100 / WEIGHTED_FROM)
    assert choose_weights(np.array([100, 100, small])) == "sqrt"
    assert choose_weights(np.array([100, 100, 0])) == "none"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_loss_is_the_weighted_mean_of_the_images(smoothing: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=random, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2])
    weights = torch.tensor([0.5, 1.0, 3.0])
    mean, each = cross_entropy(logits, labels, smoothing, weights)
    plain = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    assert torch.equal(each, plain)
    assert not each.requires_grad
    assert mean.item() == pytest.approx((weights[labels] * plain).sum().item() / 8)
    # the gradient of an image is proportional to the weight of its class
    mean.backward()
    (gradient,) = torch.autograd.grad(plain.sum(), logits)
    assert logits.grad is not None
    assert torch.allclose(logits.grad, weights[labels][:, None] * gradient / 8)


@pytest.mark.parametrize(("asked", "power"), [("auto", 0.5), ("sqrt", 0.5), ("balanced", 1)])
def test_setup_has_the_weights_of_the_images_that_are_trained_on(asked: str, power: float) -> None:
    given = data(120, 40, 20)
    recipe = resolved(XS.replace(class_weights=asked), given)
    assert recipe.class_weights in POWERS
    setup = build_setup(given, None, recipe, quiet)
    expected = loss_weights(setup.training.class_counts, power)
    assert expected is not None
    assert setup.class_weights is not None
    assert setup.class_weights.numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("counts", [(60, 60), (120, 20)])
def test_none_and_balanced_classes_have_no_weights(counts: tuple[int, ...]) -> None:
    given = data(*counts)
    asked = "none" if counts[0] != counts[1] else "balanced"
    recipe = resolved(XS.replace(class_weights=asked), given)
    assert recipe.class_weights == asked
    assert build_setup(given, None, recipe, quiet).class_weights is None


def test_imbalance_and_what_is_done_about_it_are_noted() -> None:
    for asked, said in (("auto", "class_weights: sqrt"), ("none", "count equally")):
        notes: list[str] = []
        recipe = XS.replace(class_weights=asked, threads=1)
        resolve(recipe, data(120, 20), MadeMachine(), notes.append)
        (found,) = [note for note in notes if "imbalanced" in note]
        assert "'class 0' has 120" in found
        assert "'class 1' 20" in found
        assert said in found
    resolve(XS.replace(threads=1), data(60, 50), MadeMachine(), notes.append)
    assert len([note for note in notes if "imbalanced" in note]) == 1


def test_tutorial_is_that_of_keras_whatever_the_classes() -> None:
    assert resolved(Recipe(epochs=1), data(120, 20)).class_weights == "none"
