from __future__ import annotations

import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from peewit.models.registry import build
from peewit.training.optimizers.keras_adam import KerasAdam


class SlowKerasAdam:
    """The formula, for each tensor, in float64."""

    def __init__(self, weights: list[np.ndarray], lr: float, betas: tuple[float, float]) -> None:
        self.weights = [weight.astype(np.float64) for weight in weights]
        self.mean = [np.zeros(weight.shape) for weight in weights]
        self.square = [np.zeros(weight.shape) for weight in weights]
        self.lr, self.betas, self.t = lr, betas, 0

    def step(self, gradients: list[np.ndarray], eps: float = 1e-7) -> None:
        self.t += 1
        beta1, beta2 = self.betas
        rate = self.lr * np.sqrt(1 - beta2**self.t) / (1 - beta1**self.t)
        for i, gradient in enumerate(gradients):
            self.mean[i] = beta1 * self.mean[i] + (1 - beta1) * gradient
            self.square[i] = beta2 * self.square[i] + (1 - beta2) * gradient**2
            self.weights[i] -= rate * self.mean[i] / (np.sqrt(self.square[i]) + eps)


def parameters(seed: int = 0) -> list[nn.Parameter]:
    """Tensors of several shapes, memory formats, and sizes that are not multiples of 16."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(5, 3, 3, 3), (7,), (4, 9), (), (6, 1, 2, 2), (3, 2)]
    tensors = [torch.randn(shape, generator=random) for shape in shapes]
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    tensors[4] = tensors[4].contiguous(memory_format=torch.channels_last)
    tensors[5] = tensors[5].T
    return [nn.Parameter(tensor) for tensor in tensors]


def give_gradients(weights: list[nn.Parameter], step: int, scale: float = 1.0) -> None:
    # in contiguous order, unlike some of the weights
    random = torch.Generator().manual_seed(100 + step)
    for weight in weights:
        weight.grad = scale * torch.randn(weight.shape, generator=random)


@pytest.mark.parametrize("scale", [1.0, 1e-6])  # epsilon dominates for small gradients
@pytest.mark.parametrize(("lr", "betas"), [(1e-3, (0.9, 0.999)), (0.05, (0.5, 0.9))])
def test_it_agrees_with_the_formula(scale: float, lr: float, betas: tuple[float, float]) -> None:
    weights = parameters()
    slow = SlowKerasAdam([weight.detach().numpy().copy() for weight in weights], lr, betas)
    fast = KerasAdam(weights, lr=lr, betas=betas)
    for step in range(20):
        give_gradients(weights, step, scale)
        slow.step([weight.grad.numpy().astype(np.float64) for weight in weights])
        fast.step()
    for weight, expected in zip(weights, slow.weights, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=2e-6)


def test_comparison_with_the_formula_detects_a_wrong_epsilon() -> None:
    weights = parameters()
    slow = SlowKerasAdam([weight.detach().numpy().copy() for weight in weights], 1e-3, (0.9, 0.999))
    fast = KerasAdam(weights)
    for step in range(20):
        give_gradients(weights, step, 1e-6)
        slow.step([weight.grad.numpy().astype(np.float64) for weight in weights], eps=1e-8)
        fast.step()
    errors = [
        np.abs(weight.detach().numpy() - expected).max()
        for weight, expected in zip(weights, slow.weights, strict=True)
    ]
    assert min(errors) > 1e-4


def test_parameters_stay_the_same_objects_with_the_same_values_and_memory_order() -> None:
    weights = parameters()
    before = [(weight.detach().clone(), weight.stride()) for weight in weights]
    optimizer = KerasAdam(weights)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], weights, strict=True))
    for weight, (value, stride) in zip(weights, before, strict=True):
        assert torch.equal(weight, value)
        assert weight.stride() == stride


def test_reallocated_parameters_are_still_trained() -> None:
    weights = parameters()
    optimizer = KerasAdam(weights, lr=0.5)
    for weight in weights:
        weight.data = weight.detach().clone() + 1  # as Module.to does
    before = [weight.detach().clone() for weight in weights]
    give_gradients(weights, 0)
    optimizer.step()
    for weight, value in zip(weights, before, strict=True):
        change = (weight.detach() - value).abs().numpy()
        assert change == pytest.approx(np.full(change.shape, 0.5), abs=1e-3)


def test_weights_loaded_between_steps_are_used() -> None:
    weights = parameters()
    optimizer = KerasAdam(weights, lr=0.5)
    with torch.no_grad():
        weights[1].fill_(9.0)
    give_gradients(weights, 0)
    optimizer.step()
    assert (weights[1] - 9.0).abs().detach().numpy() == pytest.approx(0.5, abs=1e-4)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    random = torch.Generator().manual_seed(step)
    x, y = torch.rand(4, 1, 22, 22, generator=random), torch.tensor([0, 1, 2, 0])
    optimizer.zero_grad()
    model.dropout.p = 0.0
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def through_a_file(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors stores contiguous tensors, and refuses tensors that overlap
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.load(safetensors.torch.save(plain))


def test_resume_from_a_saved_state_is_bit_identical() -> None:
    model = build("tutorial", (22, 22, 1), 3, seed=0)
    optimizer = KerasAdam(model.parameters())
    for step in range(3):
        one_step(model, optimizer, step)
    weights = through_a_file(model.state_dict())
    state = optimizer.state_dict()
    flat = {f"{i}/{k}": v for i, values in state["state"].items() for k, v in values.items()}
    loaded: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in through_a_file(flat).items():
        index, name = key.split("/")
        loaded.setdefault(int(index), {})[name] = value
    groups = copy.deepcopy(state["param_groups"])
    for step in range(3, 6):
        one_step(model, optimizer, step)

    again = build("tutorial", (22, 22, 1), 3, seed=9)
    resumed = KerasAdam(again.parameters(), lr=123.0)
    resumed.load_state_dict({"state": loaded, "param_groups": groups})
    again.load_state_dict(weights)
    assert resumed.param_groups[0]["steps"] == 3
    assert resumed.param_groups[0]["lr"] == 1e-3
    for step in range(3, 6):
        one_step(again, resumed, step)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_fresh_state_can_be_saved_and_loaded() -> None:
    one, two = KerasAdam(parameters()), KerasAdam(parameters())
    two.load_state_dict(one.state_dict())
    assert two.param_groups[0]["steps"] == 0


def test_a_state_of_other_parameters_is_refused() -> None:
    optimizer = KerasAdam(parameters())
    state = KerasAdam(parameters()[:3]).state_dict()
    with pytest.raises(ValueError, match="size of optimizer"):
        optimizer.load_state_dict(state)
    state = KerasAdam(list(reversed(parameters()))).state_dict()
    with pytest.raises(ValueError, match="other parameters"):
        optimizer.load_state_dict(state)
    state = optimizer.state_dict()
    state["state"] = {}
    with pytest.raises(ValueError, match="other parameters"):
        optimizer.load_state_dict(state)


def test_groups_have_separate_learning_rates() -> None:
    slow, fast = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = KerasAdam([{"params": [slow], "lr": 0.1}, {"params": [fast]}], lr=0.5)
    slow.grad = fast.grad = torch.ones(3)
    optimizer.step()
    assert slow.detach().numpy() == pytest.approx(-0.1, abs=1e-5)
    assert fast.detach().numpy() == pytest.approx(-0.5, abs=1e-5)


def test_closure_is_called_with_gradients_enabled() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = KerasAdam([weight], lr=0.1)

    def closure() -> torch.Tensor:
        loss = (weight**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert weight.item() == pytest.approx(1.9)


def test_a_parameter_without_gradient_is_an_error() -> None:
    weights = parameters()
    give_gradients(weights, 0)
    weights[2].grad = None
    with pytest.raises(ValueError, match="no gradient"):
        KerasAdam(weights).step()
