from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from peewit.models.registry import MODELS, build, minimum_size
from peewit.models.summary import WIDTH, Summary, format_bytes, summarise


@pytest.fixture(scope="module")
def tutorial() -> Summary:
    return summarise(build("tutorial", (32, 32, 3), 10, seed=0), (32, 32, 3))


def test_the_tutorials_table_equals_keras(tutorial: Summary) -> None:
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
    # outputs of convolutions and normalisations; of pooling; of dropout and the dense layers
    assert tutorial.activation_bytes == 4 * (2 * scaled + pooled + 256 + 32 + 10)


def test_json_contains_all_numbers(tutorial: Summary) -> None:
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
def test_totals_of_every_model_are_complete(name: str) -> None:
    size = minimum_size(name)
    shape = (size, size, 3 if MODELS[name].normalisation else 1)
    model = build(name, shape, 3, seed=0)
    summary = summarise(model, shape)
    state = [t.numel() for t in model.state_dict().values() if t.is_floating_point()]
    assert summary.parameters == sum(state)
    assert summary.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert summary.rows[-1].output_shape == (3,)


def test_the_model_is_left_unchanged() -> None:
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


def test_the_model_is_left_unchanged_if_the_image_does_not_fit() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0)
    with pytest.raises(RuntimeError):
        summarise(model, (32, 32, 1))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class Residual(nn.Module):
    """What other models may contain: shared layers, branches, own parameters, frozen layers."""

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
    # the shared layer counts once, in the row of its first call
    assert parameters == [216, 152, 0, 0, 72]
    assert summary.parameters == 216 + 32 + 152 + 72 + 36 + 5 + 12
    assert summary.non_trainable == 16 + 72
    text = " ".join(summary.explain().split())
    assert "3 x 3 x 2 x 8 + 8 = 152" in text
    assert "of each of the 4 groups" in text
    assert "(16 + 2 x 1 - 3) / 2, rounded down, + 1 = 8 in height" in text
    assert "Non-trainable: 72 more, which are frozen" in text


def test_a_batch_normalisation_without_moving_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    summary = summarise(model, (8, 8, 3))
    assert summary.rows[1].parameters == 8
    assert summary.non_trainable == 0
    assert "moving" not in summary.explain()


@pytest.fixture(scope="module")
def fast() -> Summary:
    return summarise(build("fast-xs", (32, 32, 3), 10, seed=0), (32, 32, 3), "muon")


def test_memory_of_training_with_muon(fast: Summary) -> None:
    assert fast.optimizer_bytes == 8 * fast.trainable
    text = " ".join(fast.explain().split())
    assert "two more numbers per trainable value, its gradient and Muon's" in text
    assert "Adam" not in text


def test_the_whitening_layer_is_explained_with_its_padding(fast: Summary) -> None:
    text = " ".join(fast.rows[0].explanation)
    assert "(32 + 1 - 2) + 1 = 32 in height and width" in text
    assert "padded by 1 pixel at the right and at the bottom" in text
    assert "Non-trainable: the kernels, 288: they are computed once" in text
    assert (fast.rows[0].trainable, fast.rows[0].non_trainable) == (24, 288)


def test_global_pooling_is_named_as_in_keras(fast: Summary) -> None:
    pool = fast.rows[-2]
    assert (pool.name, pool.kind) == ("global_max_pooling2d", "GlobalMaxPooling2D")
    assert "the maximum of each channel" in pool.explanation[0]


def test_the_table_is_aligned_and_complete(tutorial: Summary) -> None:
    lines = tutorial.table().splitlines()
    head, rule, rows = lines[0], lines[1], lines[2:15]
    assert {len(line) for line in [head, rule, *rows]} == {len(rule)}
    assert " ".join(rows[0].split()) == "conv2d (Conv2D) 30 x 30 x 64 1,792 1,555,200 230.4 kB"
    assert rows[4].split()[:2] == ["batch_normalization_1", "(BatchNormalization)"]
    assert "..." not in tutorial.table()
    assert all(line == line.rstrip() for line in lines)


def test_the_totals_follow_the_table(tutorial: Summary) -> None:
    text = tutorial.table()
    assert re.search(r"Parameters +159,018\n +trainable +158,506\n +non-trainable +512\n", text)
    assert "15,283,648 to predict one 32 x 32 x 3 image" in text
    assert "636.1 kB for the weights" in text


def test_the_explanation_contains_the_numbers_of_each_layer(tutorial: Summary) -> None:
    text = re.sub(r"\s+", " ", tutorial.explain())
    for expected in (
        "3 x 3 x 3 x 64 + 64 = 1,792: kernel height x kernel width x input channels x output "
        "channels + one bias per output channel",
        "3 x 3 x 64 x 128 + 128 = 73,856",
        "3 x 3 x 128 x 64 + 64 = 73,792",
        "4 x 128 = 512: each channel has scale (gamma), shift (beta), moving mean and moving "
        "variance",
        "Trainable: scale and shift, 2 x 64 = 128",
        "Non-trainable: moving mean and moving variance, 2 x 64 = 128: they are estimated",
        "moving = 0.99 x moving + 0.01 x batch",
        "(32 - 3) + 1 = 30 in height and width",
        "30 / 2 = 15 in height and width",
        "13 / 2, rounded down, = 6 in height and width",
        "2 x 2 x 64 = 256",
        "256 x 32 + 32 = 8,224: inputs x outputs + one bias per output",
        "32 x 10 + 10 = 330",
        "1,792 + 256 + 73,856 + 512 + 73,792 + 256 + 8,224 + 330 = 159,018",
        "2 x (64 + 128 + 64) = 512",
        "159,018 - 512 = 158,506",
        "a random 50% of the values",
        "3 x 3 x 64 x 128 = 73,728 at each of 13 x 13 positions = 12,460,032",
    ):
        assert expected in text


def test_every_layer_is_explained_within_the_line_width(tutorial: Summary) -> None:
    table, text = tutorial.table(), tutorial.explain()
    assert text.startswith(table)
    explanation = text[len(table) :]
    for row in tutorial.rows:
        assert f"\n{row.name} ({row.kind}): " in explanation
        assert "arameters: " in row.explanation[0]
    assert max(map(len, explanation.splitlines())) <= WIDTH


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 999, 1000, 999_949, 999_951, 5 * 10**9, 10**13)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "5.0 GB",
        "10,000.0 GB",
    ]
