"""The reference implements its sources, and resumes where it was stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import airbench_reference as reference
import numpy as np
import pytest
import rawlog
import torch
from torch.nn import functional as F

import peewit
from peewit.data.dataset import Dataset
from peewit.data.sources import Splits


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow network, batches of 20 and two epochs, for 60 images."""
    small = {"WIDTHS": (24, 24, 32), "BATCH": 20, "EPOCHS": 2, "WHITENING_EPOCHS": 1}
    for name, value in small.items():
        monkeypatch.setattr(reference, name, value)


def test_the_network_is_initialised_as_in_its_sources(tiny: Dataset) -> None:
    training = reference.Training(tiny, seed=0)
    network = training.network
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    filters = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert trained == 24 + filters + 2 * (64 + 256 + 256) + 3 * 256
    assert network.head.weight.std().item() == pytest.approx(1.0)
    # a dirac filter is the identity on its channel
    assert network.blocks[1].conv1.weight[5, 5, 1, 1] == 1.0
    assert network.blocks[1].conv1.weight[:64].sum().item() == pytest.approx(64.0)
    assert network.blocks[0].norm1.momentum == 0.4
    names = {id(p) for p in training.muon.filters}
    assert len(names) == 6
    assert not any(id(p) in names for group in training.sgd.param_groups for p in group["params"])


def test_whitened_patches_have_unit_covariance() -> None:
    # correlated neighbours, as in images, with a variance for which the added 5e-4 is negligible
    noise = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = noise + noise.roll(1, 3) + noise.roll(1, 1)
    network = reference.Network(10)
    network.whiten(images)
    white = F.conv2d(images, network.whitening.weight).transpose(0, 1).flatten(1)
    covariance = white @ white.T / white.shape[1]
    torch.testing.assert_close(covariance[:12, :12], torch.eye(12), atol=0.02, rtol=0)
    torch.testing.assert_close(white[12:], -white[:12])


@pytest.mark.parametrize("shape", [(64, 216), (256, 64), (5, 5)])
def test_newton_schulz_equalises_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(reference.orthogonal(matrix))
    assert reference.orthogonal(matrix).shape == shape
    assert after.max() < 1.3
    assert after.max() / after.min() < before.max() / before.min()


def test_flops_are_those_of_the_layers() -> None:
    # 2 * pixels * out * in * taps of: whitening, 24-64, 64-64, 64-256, 256-256 twice, 256-256, head
    layers = [31**2 * 24 * 12, 31**2 * 64 * 216, 15**2 * 64 * 576, 15**2 * 256 * 576,
              7**2 * 256 * 2304, 7**2 * 256 * 2304, 3**2 * 256 * 2304, 2560]  # fmt: skip
    way = [2 * layer for layer in layers]
    assert reference.flops(True) == way[0] + 3 * sum(way[1:])
    # without the first convolution's gradient for its input
    assert reference.flops(False) == reference.flops(True) - way[1]


@pytest.mark.usefixtures("small")
def test_images_are_cropped_and_mirrored(tiny: Dataset) -> None:
    images = reference.Images(tiny, seed=3)
    again = reference.Images(tiny, seed=3)
    seen = []
    for epoch in (0, 1):
        for (batch, labels), (same, _) in zip(
            images.batches(epoch), again.batches(epoch), strict=True
        ):
            assert batch.shape == (20, 3, 32, 32)
            torch.testing.assert_close(batch, same, rtol=0, atol=0)
            seen += labels.tolist()
    assert sorted(seen) == sorted(2 * tiny.labels.tolist())
    # the middle of each image is where the crop puts it; the next epoch has its mirror image
    for epoch in (0, 1):
        order = torch.randperm(60, generator=images.random("order", epoch))
        crop = torch.randint(0, 5, (60, 2), generator=images.random("crop", epoch))
        mirrored = torch.rand(60, generator=images.random("mirror")) < 0.5
        first = next(iter(images.batches(epoch)))[0].permute(0, 2, 3, 1).numpy()
        for place, number in enumerate(order[:20].tolist()):
            image = tiny.images[number]
            image = image[:, ::-1] if mirrored[number] else image
            down, right = (2 - crop[number]).tolist()
            moved = np.roll(image, (down, right), (0, 1))
            moved = moved[:, ::-1] if epoch else moved
            np.testing.assert_array_equal(first[place, 2:-2, 2:-2], moved[2:-2, 2:-2])


@pytest.mark.usefixtures("small")
def test_resume_after_kill_is_bit_identical(
    tmp_path: Path, tiny: Dataset, tiny_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peewit, "load", lambda *_, **__: Splits(tiny, tiny_test, ()))
    monkeypatch.setattr(reference, "best_rate", lambda: 100e9)
    monkeypatch.setattr(reference, "keep_freed_memory", lambda: None)

    def run(log: Path) -> list[dict[str, float]]:
        monkeypatch.setattr(sys, "argv", ["", "--data", "x", "--log", str(log)])
        reference.main()
        return rawlog.read(log)

    whole = run(tmp_path / "whole.jsonl")
    real = reference.Training.epoch

    def stopped(self: reference.Training, number: int, most: int | None = None) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return real(self, number, most)

    monkeypatch.setattr(reference.Training, "epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.jsonl")
    monkeypatch.setattr(reference.Training, "epoch", real)
    # as if it had been killed after saving the state and before logging its line
    (tmp_path / "parts.jsonl").unlink()
    parts = run(tmp_path / "parts.jsonl")
    assert [row["epoch"] for row in parts] == [1, 2]
    assert parts[1]["seconds"] > parts[0]["seconds"]
    for name in ("loss", "accuracy", "tta_accuracy"):
        assert [row[name] for row in parts] == [row[name] for row in whole]
    states = [(tmp_path / f"{name}-seed0.state").read_bytes() for name in ("whole", "parts")]
    assert states[0][-50_000:] == states[1][-50_000:]
    # finished: nothing more to do
    assert len(run(tmp_path / "parts.jsonl")) == 2
    (tmp_path / "parts-seed0.state").unlink()
    with pytest.raises(SystemExit, match=r"parts-seed0\.state is missing"):
        run(tmp_path / "parts.jsonl")
