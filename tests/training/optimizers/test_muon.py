"""Muon's updates are orthogonal; other groups are trained by SGD with momentum."""

from __future__ import annotations

import math

import pytest
import torch

from peewit.training.optimizers.muon import Muon, newton_schulz


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_iteration_equalises_singular_values(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    result = newton_schulz(matrix, steps=5)
    # the same singular vectors; the polynomial is applied to the singular values
    x = sizes / sizes.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    assert torch.allclose(result, left @ torch.diag(x) @ right, atol=1e-3)
    assert (x > 0.5).all()
    assert (x < 1.3).all()


def test_step_equals_a_manual_computation() -> None:
    start, gradients = random(4, 3, 3, 3), [random(4, 3, 3, 3, seed=n) for n in (1, 2)]
    filters = torch.nn.Parameter(start.clone())
    optimizer = Muon([filters], lr=0.24, momentum=0.6, steps=3)
    weight, total = start.flatten(1), torch.zeros(4, 27)
    for gradient in gradients:
        filters.grad = gradient
        optimizer.step()
        total = 0.6 * total + gradient.flatten(1)
        weight = weight / weight.norm() * math.sqrt(4)
        weight = weight - 0.24 * newton_schulz(gradient.flatten(1) + 0.6 * total, 3)
    assert torch.allclose(filters.flatten(1), weight, atol=1e-5)


def test_memory_format_does_not_matter() -> None:
    results = []
    for order in (torch.contiguous_format, torch.channels_last):
        filters = torch.nn.Parameter(random(8, 4, 3, 3).contiguous(memory_format=order))
        filters.grad = random(8, 4, 3, 3, seed=1).contiguous(memory_format=order)
        Muon([filters]).step()
        results.append(filters.detach())
    assert torch.allclose(*results, atol=1e-5)


def test_other_groups_are_trained_as_by_pytorchs_sgd() -> None:
    ours, theirs = (torch.nn.Parameter(random(5)) for _ in range(2))
    group = {"params": [ours], "lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}
    optimizer = Muon([torch.nn.Parameter(torch.eye(2))], others=[group])
    like = torch.optim.SGD([theirs], lr=0.1, momentum=0.85, weight_decay=0.01, nesterov=True)
    for seed in range(4):
        ours.grad, theirs.grad = random(5, seed=seed), random(5, seed=seed)
        optimizer.step()
        like.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_parameters_without_gradient_are_unchanged() -> None:
    bias = torch.nn.Parameter(torch.ones(3))
    filters = torch.nn.Parameter(torch.eye(2))
    Muon([filters], others=[{"params": [bias], "lr": 0.1, "weight_decay": 1.0}]).step()
    assert torch.equal(bias, torch.ones(3))
    assert torch.equal(filters, torch.eye(2))


def test_resume_from_a_saved_state_is_bit_identical() -> None:
    def steps(filters: torch.nn.Parameter, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            filters.grad = random(4, 2, 3, 3, seed=seed)
            optimizer.step()

    whole = torch.nn.Parameter(random(4, 2, 3, 3))
    steps(whole, Muon([whole]), range(6))
    first = torch.nn.Parameter(random(4, 2, 3, 3))
    optimizer = Muon([first])
    steps(first, optimizer, range(3))
    second = torch.nn.Parameter(first.detach().clone())
    resumed = Muon([second])
    resumed.load_state_dict(optimizer.state_dict())
    steps(second, resumed, range(3, 6))
    assert torch.equal(whole, second)
