"""Fast recipes on unusual data: small, large, grey, few images, many classes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from made_data import noise
from made_machine import resolved
from peewit.data import dataset as dataset_module
from peewit.data.dataset import Dataset
from peewit.errors import UsageError
from peewit.evaluation.inference import logits_in_batches
from peewit.models.registry import build
from peewit.training.build import build_setup, resized
from peewit.training.callbacks import Callback, CallbackList, StopTraining
from peewit.training.loop import fit
from peewit.training.optimizers import make_optimizer
from peewit.training.recipe import Recipe
from peewit.training.schedules import set_learning_rates
from peewit.training.state import TrainState

FAST = Recipe.preset("fast", model="fast-xs", batch_size=500)
FEW = FAST.replace(validation_fraction=0.1, batch_size=9)


def quiet(sentence: str) -> None:
    return


class StopAfter(Callback):
    """Stops training after a number of images."""

    def __init__(self, images: int) -> None:
        self.images, self.seen = images, 0

    def on_step_end(self, state: TrainState) -> None:
        self.seen = state.seen

    def should_stop(self) -> bool:
        return self.seen > self.images


def groups(**changes: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer, dict[str, Any]]:
    model = build("fast-xs", (32, 32, 3), 10, seed=0)
    optimizer = make_optimizer(model, FAST.replace(**{"lr": 0.24, **changes}))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in optimizer.param_groups)
    return model, optimizer, of


def test_every_trained_parameter_is_in_one_group() -> None:
    model, _, of = groups()
    assert set(of) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_learning_rates_and_weight_decays_are_as_published() -> None:
    # arXiv 2404.00498 with Muon: for the sum over a batch, where the loop uses the mean
    for batch in (50, 500):
        of = groups(batch_size=batch)[2]
        filters, bias = of["blocks.0.conv.weight"], of["blocks.3.norm.bias"]
        assert (filters["lr"], filters["momentum"], filters["steps"]) == (0.24, 0.6, 3)
        assert filters["weight_decay"] == 0
        assert bias["lr"] == pytest.approx(0.053 * batch)
        assert of["whitening.bias"]["lr"] == pytest.approx(0.053 * batch)
        assert of["head.weight"]["lr"] == pytest.approx(0.67 * (9 / 256) ** 2 * batch)
        for name in ("whitening.bias", "blocks.3.norm.bias", "head.weight"):
            assert (of[name]["momentum"], of[name]["steps"]) == (0.85, 0)
            assert of[name]["lr"] * of[name]["weight_decay"] == pytest.approx(2e-6 * batch)
    half = groups(lr=0.12)[2]
    for name, group in groups()[2].items():
        assert half[name]["lr"] == pytest.approx(group["lr"] / 2)


def test_whitening_bias_is_frozen_after_three_eighths() -> None:
    model, optimizer, of = groups()
    firsts = {name: group["lr"] for name, group in of.items()}
    for share, trained in ((0.0, True), (0.37, True), (0.38, False), (1.0, False)):
        set_learning_rates(optimizer, share)
        for name, parameter in model.named_parameters():
            if name in of and name != "whitening.bias":
                assert parameter.requires_grad
                assert of[name]["lr"] == pytest.approx(firsts[name] * (1 - share))
        assert model.get_parameter("whitening.bias").requires_grad == trained
    set_learning_rates(optimizer, 0.1875)
    assert of["whitening.bias"]["lr"] == pytest.approx(firsts["whitening.bias"] / 2)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (noise(40, 64, classes=2), 32),
        (noise(40, 1), 32),
        (noise(40, 1, 1, classes=2), 32),
        (Dataset(np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2, ["a", "b"]), 8),
        (noise(40, 8, 1), 8),
        (noise(40, 33, 1), 32),
        (noise(1000, 9, classes=100), 9),
    ],
    ids=["large", "a pixel", "a grey pixel", "black", "grey", "a bit large", "100 classes"],
)
def test_any_image_size_and_count_can_be_trained(data: Dataset, size: int) -> None:
    recipe = resolved(FAST.replace(epochs=1, cutout=3), data)
    job = build_setup(data, None, recipe, quiet)
    rule = job.preprocessing
    assert (rule.height, rule.width, rule.channels) == (size, size, data.image_shape[2])
    assert job.training.image_shape[0] == min(size, data.image_shape[0])
    assert job.validation.image_shape == data.image_shape
    before = job.model.get_parameter("blocks.0.conv.weight").detach().clone()
    position = TrainState()
    with suppress(StopTraining):
        fit(job, position, CallbackList([StopAfter(2 * recipe.batch_size)]))
    assert np.isfinite(position.loss)
    assert not torch.equal(job.model.get_parameter("blocks.0.conv.weight"), before)
    logits = next(logits_in_batches(job.model, rule.tensor, data.images))
    assert logits.shape[1] == len(data.class_names)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam", "lr": 1e-3, "batch_size": 4}])
def test_batches_of_a_single_small_image_are_avoided(changes: dict[str, Any]) -> None:
    # 8 x 8 pixels are reduced to a single value, which has no standard deviation
    data = noise(15, 8, classes=2)
    recipe = resolved(FAST.replace(epochs=1, validation_fraction=0.15, **changes), data)
    job, position = build_setup(data, None, recipe, quiet), TrainState()
    assert len(job.training) == 13
    assert job.recipe.batch_size >= 2
    fit(job, position)
    assert position.seen == 12


def test_batch_size_1_needs_large_images() -> None:
    single = FAST.replace(epochs=1, batch_size=1, validation_fraction=0.1)
    with pytest.raises(UsageError, match=r"batch_size is 1: .*8 x 8"):
        build_setup(noise(40, 8), None, resolved(single, noise(40, 8)), quiet)
    job, position = (
        build_setup(noise(40, 16), None, resolved(single, noise(40, 16)), quiet),
        TrainState(),
    )
    with suppress(StopTraining):
        fit(job, position, CallbackList([StopAfter(1)]))
    assert np.isfinite(position.loss)


def test_large_images_are_resized_without_augmentation_too() -> None:
    plain = FEW.replace(flip="none", translate=0)
    job = build_setup(noise(40, 64), None, resolved(plain, noise(40, 64)), quiet)
    assert job.augment is None
    assert job.training.image_shape == (32, 32, 3)
    tutorial = build_setup(noise(40, 64), None, Recipe(image_size=32, batch_size=4), quiet)
    assert tutorial.training.image_shape == (64, 64, 3)  # at full resolution


def test_mean_colour_is_computed_only_for_cutout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, plain = noise(40, 32), Recipe(batch_size=4, flip="random", translate=1)
    squares = build_setup(data, None, plain.replace(cutout=2), quiet)
    assert squares.augment is not None
    mean = squares.training.images.mean((0, 1, 2))
    assert squares.augment.fill.tolist() == pytest.approx(mean, abs=0.6)
    monkeypatch.setattr(
        Dataset, "channel_statistics", property(lambda self: pytest.fail("counted"))
    )
    assert build_setup(data, None, plain, quiet).augment is not None


def test_normalisation_uses_the_training_images() -> None:
    data = noise(40, 8)
    flat = data.images.copy()
    flat[..., 1] = 51  # a constant channel
    data = Dataset(flat, data.labels, data.class_names)
    job = build_setup(data, None, resolved(FEW, data), quiet)
    x = job.preprocessing.tensor(job.training.images)
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert x.std((0, 2, 3)).tolist() == pytest.approx([1, 0, 1], abs=1e-3)
    assert job.preprocessing.mean[1] == pytest.approx(0.2)
    assert job.preprocessing.std[1] == 1.0


def test_bfloat16_keeps_float32_weights() -> None:
    recipe = FEW.replace(epochs=1, precision="bfloat16")
    job, position = (
        build_setup(noise(30, 8), None, resolved(recipe, noise(30, 8)), quiet),
        TrainState(),
    )
    fit(job, position)
    assert np.isfinite(position.history[0]["loss"])
    assert {p.dtype for p in job.model.parameters()} == {torch.float32}


def test_resizing_preserves_the_content() -> None:
    images = np.zeros((300, 20, 40, 1), np.uint8)
    images[:, :, 20:] = 255
    small = resized(images, 10, 10, "stretch")
    assert (small.shape, small.dtype) == ((300, 10, 10, 1), np.uint8)
    assert small[:, :, :4].max() == 0
    assert small[:, :, 6:].min() == 255
    assert np.array_equal(resized(small, 10, 10, "stretch"), small)


def test_statistics_are_computed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = noise(7, 6).channel_statistics
    monkeypatch.setattr(dataset_module, "_COUNTED_AT_ONCE", 80)
    assert np.array_equal(whole, noise(7, 6).channel_statistics)
    assert whole[0] == pytest.approx((noise(7, 6).images / 255).mean((0, 1, 2)))
    assert whole[1] == pytest.approx((noise(7, 6).images / 255).std((0, 1, 2)))
