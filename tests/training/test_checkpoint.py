"""A checkpoint restores the exact state, and a damaged one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.models.registry import build
from peewit.training import checkpoint
from peewit.training.optimizers.keras_adam import KerasAdam
from peewit.training.state import TrainState

ROW = {
    "epoch": 1,
    "seconds": 0.25,
    "images_per_second": 400.0,
    "loss": 2 / 3,
    "accuracy": 0.5,
    "validation_loss": float("inf"),
    "validation_accuracy": 0.25,
}
POSITION = TrainState(
    epoch=2,
    step=3,
    images=96,
    correct=40,
    loss_sum=0.1 + 0.2,
    seconds=1 / 3,
    spent=7 / 3,
    history=[ROW, ROW | {"epoch": 2, "images": 50}],
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
        (without_position, "copy.safetensors: position is missing"),
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


def rewritten(
    saved: Path, copy: Path, facts: Callable[[dict[str, Any]], object] = lambda facts: None
) -> Path:
    """Write the checkpoint with other facts in its metadata, and without a checksum."""
    tensors, metadata = checkpoint.read_tensors(saved)
    content = json.loads(metadata["peewit"])
    facts(content)
    copy.write_bytes(safetensors.torch.save(tensors, {"peewit": json.dumps(content)}))
    return copy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda facts: facts.update(format="1"), "it has no format version"),
        (lambda facts: facts.update(position=[]), "position is not valid"),
        (lambda facts: facts["position"].pop("step"), "step is missing"),
        (lambda facts: facts["position"].update(epoch=1.5), "epoch is not valid"),
        (lambda facts: facts["position"].update(step=-1), "step is not valid"),
        (lambda facts: facts["position"].update(spent="long"), "spent is not valid"),
        (lambda facts: facts["position"].update(spent=10**400), "spent is not valid"),
        (lambda facts: facts["position"].update(rounds=[[1]]), r"rounds\[0\] is not valid"),
        (lambda facts: facts["position"]["history"][1].pop("loss"), r"history\[1\].loss is mis"),
        (lambda facts: facts["position"]["history"][0].update(loss="x"), r"history\[0\].loss is n"),
        (lambda facts: facts.update(optimizer=3), "optimizer is not valid"),
        (lambda facts: facts["optimizer"].pop("state"), "optimizer.state is missing"),
        (lambda facts: facts["optimizer"]["param_groups"].clear(), "settings of its optimizer"),
        *(
            (
                lambda facts, values=values: facts["optimizer"]["param_groups"][0].update(values),
                "the settings of its optimizer are not those",
            )
            for values in (
                {"lr": "fast"},
                {"lr": float("nan")},
                {"lr": -1.0},
                {"betas": [0.9]},
                {"betas": [0.9, None]},
                {"steps": 2.0},
                {"steps": -1},
                {"params": [0]},
                {"nesterov": True},
            )
        ),
    ],
)
def test_invalid_metadata_is_refused(
    saved: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    sentence: str,
) -> None:
    copy = rewritten(saved[0], tmp_path / "copy.safetensors", change)
    with pytest.raises(PeewitError, match=rf"cannot read .*copy\.safetensors: .*{sentence}"):
        checkpoint.load(copy, *make())


def test_values_that_an_earlier_version_did_not_write_have_defaults(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    copy = rewritten(
        saved[0],
        tmp_path / "copy.safetensors",
        lambda facts: facts.update(position={"epoch": 1, "step": 2, "later": 3}),
    )
    with torch.random.fork_rng(devices=[]):
        assert checkpoint.load(copy, *make()) == TrainState(epoch=1, step=2)


@pytest.mark.parametrize("name", ["optimizer/0/exp_avg", "optimizer/99/exp_avg", "random"])
def test_other_tensors_are_refused(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, name: str
) -> None:
    tensors, metadata = checkpoint.read_tensors(saved[0])
    checkpoint.write_tensors(tmp_path / "copy", tensors | {name: torch.zeros(3)}, metadata)
    with pytest.raises(PeewitError, match="it is not a checkpoint of this training"):
        checkpoint.load(tmp_path / "copy", *make())


def test_a_flipped_bit_anywhere_is_noticed(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    copy, content = tmp_path / "copy.safetensors", bytearray(saved[0].read_bytes())
    for place in np.random.default_rng(0).integers(0, len(content), 30):
        content[place] ^= 1 << int(place % 8)
        copy.write_bytes(content)
        content[place] ^= 1 << int(place % 8)
        with pytest.raises(PeewitError, match=r"cannot read .*copy\.safetensors: .* damaged"):
            checkpoint.read_tensors(copy)


def test_a_flipped_digit_of_the_metadata_is_noticed(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    content, copy = saved[0].read_bytes(), tmp_path / "copy.safetensors"
    assert content.count(b'\\"epoch\\": 2, \\"step') == 1
    copy.write_bytes(content.replace(b'\\"epoch\\": 2, \\"step', b'\\"epoch\\": 0, \\"step'))
    with pytest.raises(PeewitError, match="its checksum is wrong"):
        checkpoint.load(copy, *make())


def test_a_file_without_a_checksum_is_read(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    copy = rewritten(saved[0], tmp_path / "copy.safetensors")
    with torch.random.fork_rng(devices=[]):
        assert checkpoint.load(copy, *make()) == POSITION


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda weight: weight.double(), "they do not fit the model"),
        (lambda weight: weight / 0, "a weight is not a finite number"),
    ],
)
def test_weights_of_another_format_and_infinite_ones_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], sentence: str
) -> None:
    model, _ = make()
    name, weight = next(iter(model.state_dict().items()))
    with pytest.raises(PeewitError, match=sentence):
        checkpoint.load_weights(Path("x"), model, model.state_dict() | {name: change(weight)})


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
