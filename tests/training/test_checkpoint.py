"""A checkpoint restores the exact state, and a damaged one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.models.registry import build
from peewit.training import checkpoint
from peewit.training.optimizers.keras_adam import KerasAdam
from peewit.training.state import TrainState

POSITION = TrainState(
    epoch=2,
    step=3,
    images=96,
    correct=40,
    loss_sum=0.1 + 0.2,
    seconds=1 / 3,
    spent=7 / 3,
    history=[{"epoch": 1, "loss": 2 / 3}, {"epoch": 2}],
    seen=10_000_000_019,
    flops=3 * 10**15,
    fraction_done=5 / 7,
    validated=2.25,
)


def test_rates_are_those_since_the_last_row() -> None:
    position = TrainState()
    assert (position.images_per_second, position.flops_per_second) == (0, 0)
    position.images, position.seconds, position.flops = 300, 2.0, 800
    assert (position.images_per_second, position.flops_per_second) == (150, 400)
    position.add_row({"flops": 800}, 0.5)
    position.images, position.seconds, position.flops = 100, 4.0, 1000
    assert (position.images_per_second, position.flops_per_second) == (25, 50)


def make(seed: int = 0) -> tuple[nn.Module, KerasAdam]:
    model = build("tutorial", (22, 22, 3), 3, seed)
    return model, KerasAdam(model.parameters(), lr=1e-2)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.rand(4, 3, 22, 22, generator=torch.Generator().manual_seed(seed))
    model(x.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint after two steps, and the weights after two more."""
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model, optimizer = make()
        for seed in (0, 1):
            step(model, optimizer, seed)
        checkpoint.save(path, model, optimizer, POSITION)
        for seed in (2, 3):
            step(model, optimizer, seed)
    return path, model.state_dict()


def test_resume_is_bit_identical(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, after = saved
    model, optimizer = make(seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)  # must not matter: dropout's random numbers are in the checkpoint
        assert checkpoint.load(path, model, optimizer) == POSITION
        for seed in (2, 3):
            step(model, optimizer, seed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, after[name]), name


def test_state_can_be_read_without_the_weights(saved: tuple[Path, dict[str, torch.Tensor]]) -> None:
    position = checkpoint.read_state(saved[0])
    assert position == POSITION
    assert position.epochs_begun == 3
    assert TrainState(epoch=2).epochs_begun == 2


def test_means_are_over_all_images_since_the_last_row() -> None:
    assert TrainState().loss == TrainState().accuracy == 0
    position = TrainState(step=2, images=40, correct=10, loss_sum=100.0)
    assert (position.loss, position.accuracy) == (2.5, 0.25)
    position.add_row({"epoch": 1}, fraction_done=0.5)
    position.next_epoch()
    assert position == TrainState(epoch=1, validated=0.5, history=[{"epoch": 1}])


def newer(path: Path) -> None:
    facts = json.dumps({"format": 2, "position": {}, "optimizer": {}})
    path.write_bytes(safetensors.torch.save({"random": torch.zeros(1)}, {"peewit": facts}))


def without_position(path: Path) -> None:
    path.write_bytes(safetensors.torch.save({"random": torch.zeros(1)}, {"peewit": '{"format":1}'}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "there is no .*copy.safetensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "copy.safetensors: .*truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "copy.safetensors: .*truncated"),
        (lambda path: path.write_bytes(b""), "copy.safetensors: .*truncated"),
        (lambda path: path.write_bytes(b"<!doctype html>" * 9), "copy.safetensors: .*truncated"),
        (newer, r"a newer Peewit wrote it \(format 2, this one reads up to 1\); upgrade"),
        (without_position, "it is not a checkpoint of this training"),
        (
            lambda path: path.write_bytes(safetensors.torch.save({"random": torch.zeros(1)})),
            "it is not a checkpoint of this training",
        ),
    ],
)
def test_missing_truncated_and_foreign_files_are_named(
    saved: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    spoil: Callable[[Path], object],
    sentence: str,
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(saved[0].read_bytes())
    spoil(copy)
    for read in (checkpoint.read_state, lambda path: checkpoint.load(path, *make())):
        with pytest.raises(PeewitError, match=sentence):
            read(copy)


def test_the_weights_of_another_model_are_refused(
    saved: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    model = build("tutorial", (22, 22, 3), 4, seed=0)
    with pytest.raises(PeewitError, match=r"checkpoint\.safetensors"):
        checkpoint.load(saved[0], model, KerasAdam(model.parameters()))
    tensors, _ = checkpoint.read_tensors(saved[0])
    with pytest.raises(PeewitError, match="they do not fit the model of this run"):
        checkpoint.load_weights(saved[0], model, tensors, "model/")


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"cannot write .*none.x: no such file"):
        checkpoint.write_tensors(tmp_path / "none" / "x", {"a": torch.zeros(1)}, {})
