from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from peewit.models.registry import MODELS, build, minimum_size
from peewit.models.summary import summarise
from peewit.models.table import Summary


@pytest.fixture(scope="module")
def tutorial() -> Summary:
    return summarise(build("tutorial", (32, 32, 3), 10, seed=0), (32, 32, 3))


def test_the_tutorials_table_is_keras_one(tutorial: Summary) -> None:
    rows = [(row.name, row.kind, row.output_shape, row.parameters) for row in tutorial.rows]
    assert rows == [
        ("conv2d", "Conv2D", (30, 30, 64), 1792),
        ("batch_normalization", "BatchNormalization", (30, 30, 64), 256),
        ("max_pooling2d", "MaxPooling2D", (15, 15, 64), 0),
        ("conv2d_1", "Conv2D", (13, 13, 128), 73856),
        ("batch_normalization_1", "BatchNormalization", (13, 13, 128), 512),
        ("max_pooling2d_1", "MaxPooling2D", (6, 6, 128), 0),
        ("conv2d_2", "Conv2D", (4, 4, 64), 73792),
        ("batch_normalization_2", "BatchNormalization", (4, 4, 64), 256),
        ("max_pooling2d_2", "MaxPooling2D", (2, 2, 64), 0),
        ("flatten", "Flatten", (256,), 0),
        ("dropout", "Dropout", (256,), 0),
        ("dense", "Dense", (32,), 8224),
        ("dense_1", "Dense", (10,), 330),
    ]


def test_the_tutorials_totals(tutorial: Summary) -> None:
    assert tutorial.parameters == 159_018
    assert tutorial.trainable == 158_506
    assert tutorial.non_trainable == 512
    assert [row.non_trainable for row in tutorial.rows if row.non_trainable] == [128, 256, 128]
    convolutions = 30 * 30 * 27 * 64 + 13 * 13 * 576 * 128 + 4 * 4 * 1152 * 64
    scaled = 30 * 30 * 64 + 13 * 13 * 128 + 4 * 4 * 64
    assert tutorial.multiply_adds == convolutions + scaled + 256 * 32 + 32 * 10
    assert tutorial.weight_bytes == 4 * 159_018
    assert tutorial.optimizer_bytes == 12 * 158_506
    pooled = 15 * 15 * 64 + 6 * 6 * 128 + 2 * 2 * 64
    # a convolution's and a normalisation's output; pooling's; dropout's; the dense layers'
    assert tutorial.activation_bytes == 4 * (2 * scaled + pooled + 256 + 32 + 10)


def test_json_holds_every_number(tutorial: Summary) -> None:
    values = json.loads(json.dumps(tutorial.to_dict()))
    assert values["input_shape"] == [32, 32, 3]
    assert values["parameters"] == 159_018
    assert values["non_trainable"] == 512
    layer = values["layers"][1]
    assert layer["name"] == "batch_normalization"
    assert layer["output_shape"] == [30, 30, 64]
    assert (layer["parameters"], layer["trainable"], layer["non_trainable"]) == (256, 128, 128)
    assert "explanation" in layer


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_accounted_for_to_the_last_value(name: str) -> None:
    size = minimum_size(name)
    model = build(name, (size, size, 1), 3, seed=0)
    summary = summarise(model, (size, size, 1))
    state = [t.numel() for t in model.state_dict().values() if t.is_floating_point()]
    assert summary.parameters == sum(state)
    assert summary.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert summary.rows[-1].output_shape == (3,)


def test_the_model_is_left_as_it_was() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    model.train()
    model.stages[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    summarise(model, (32, 32, 3))
    assert model.training
    assert not model.stages[1].norm.training
    assert model.stages[0].norm.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_is_left_as_it_was_when_the_image_does_not_fit() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    with pytest.raises(RuntimeError):
        summarise(model, (32, 32, 1))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class Residual(nn.Module):
    """What a later model may hold: sharing, branches, a vector of its own, frozen layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.shared = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        self.act = nn.GELU()
        self.frozen = nn.Conv2d(8, 8, 1).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(5))
        self.unused = nn.Linear(3, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(x))
        x = self.act(self.shared(x)) * self.scale.sum()
        x = self.act(self.shared(x)) + self.frozen(self.shared(x))
        return self.head(self.pool(x))


def test_any_network_of_standard_modules_works() -> None:
    model = Residual()
    summary = summarise(model, (16, 20, 3))
    shapes = {row.name: row.output_shape for row in summary.rows}
    assert shapes["conv2d"] == (16, 20, 8)
    assert shapes["conv2d_1"] == (8, 10, 8)
    assert shapes["adaptive_avg_pool2d"] == (1, 1, 8)
    assert not any("gelu" in name for name in shapes)
    parameters = [row.parameters for row in summary.rows if row.kind == "Conv2D"]
    # the shared one counts once, in the row of its first call
    assert parameters == [216, 152, 0, 0, 72]
    assert summary.parameters == 216 + 32 + 152 + 72 + 36 + 5 + 12
    assert summary.non_trainable == 16 + 72
    text = " ".join(summary.explain().split())
    assert "3 x 3 x 2 x 8 + 8 = 152" in text
    assert "of one of the 4 groups" in text
    assert "(16 + 2 x 1 - 3) / 2, rounded down, + 1 = 8 down" in text
    assert "Not trained: 72 more, which were frozen" in text


def test_a_batch_normalisation_without_moving_statistics_has_none() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    summary = summarise(model, (8, 8, 3))
    assert summary.rows[1].parameters == 8
    assert summary.non_trainable == 0
    assert "moving" not in summary.explain()


@pytest.fixture(scope="module")
def fast() -> Summary:
    return summarise(build("fast-xs", (32, 32, 3), 10, seed=0), (32, 32, 3), "muon")


def test_a_fast_network_is_trained_with_muon(fast: Summary) -> None:
    assert fast.optimizer_bytes == 8 * fast.trainable
    text = " ".join(fast.explain().split())
    assert "Training keeps two more for each trained one, its gradient and Muon's sum" in text
    assert "Adam" not in text


def test_the_whitening_layer_is_worked_out_with_its_padding(fast: Summary) -> None:
    text = " ".join(fast.rows[0].explanation)
    assert "(32 + 1 - 2) + 1 = 32 each way" in text
    assert "continued by 1 pixel at the right and at the bottom" in text
    assert "Not trained: the kernels, 288: they are set once" in text
    assert (fast.rows[0].trainable, fast.rows[0].non_trainable) == (24, 288)


def test_the_last_pooling_is_named_as_in_keras(fast: Summary) -> None:
    pool = fast.rows[-2]
    assert (pool.name, pool.kind) == ("global_max_pooling2d", "GlobalMaxPooling2D")
    assert "the largest value of each channel" in pool.explanation[0]
