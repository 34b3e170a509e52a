"""The counts equal those of PyTorch's own FLOP counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from peewit.models.flops import TrainingFlops, training_flops
from peewit.models.registry import build


@pytest.mark.parametrize(
    ("name", "shape"), [("tutorial", (32, 32, 3)), ("fast-xs", (32, 32, 3)), ("fast-xs", (8, 9, 1))]
)
def test_counts_equal_pytorchs(name: str, shape: tuple[int, int, int]) -> None:
    # in evaluation mode, in which PyTorch computes the gradient
    model = build(name, shape, 10, seed=0).eval()
    x = torch.zeros(1, shape[2], *shape[:2])
    for frozen in (False, True):
        if frozen and name == "tutorial":
            continue
        if frozen:
            model.whitening.bias.requires_grad_(False)  # type: ignore[union-attr]
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        assert training_flops(model, shape) == counter.get_total_flops()


def test_the_count_changes_with_frozen_parameters() -> None:
    model = build("fast-xs", (32, 32, 3), 10, seed=0)
    count = TrainingFlops(model)
    before = count.an_image((32, 32, 3))
    model.whitening.bias.requires_grad_(False)  # type: ignore[union-attr]
    # the input of the first 3x3 convolution no longer needs a gradient
    assert before - count.an_image((32, 32, 3)) == 2 * 32 * 32 * 9 * 24 * 16
    assert count.an_image((16, 16, 3)) < before / 3.5


def test_known_counts_do_not_search_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("fast-xs", (32, 32, 3), 10, seed=0)
    count = TrainingFlops(model)
    known = count.an_image((32, 32, 3))
    # searching would take longer than all other bookkeeping of a step
    monkeypatch.setattr(type(model), "parameters", lambda self: pytest.fail("searched"))
    assert count.an_image((32, 32, 3)) == known


def test_the_model_is_left_unchanged() -> None:
    model = build("tutorial", (32, 32, 3), 10, seed=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training_flops(model, (32, 32, 3))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
