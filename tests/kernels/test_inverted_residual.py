"""The inverted residual block against PyTorch's operators in double precision."""

from __future__ import annotations

import pytest
import torch

from peewit import kernels
from peewit.kernels import inverted_residual as block
from peewit.kernels import library
from tensors import relative

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the kernels were not compiled (no C compiler)"
)

# (in, inner, out, kernel, stride, expands, batch, height, width): all groups of channels (16, 32,
# 48); columns that are no multiple of 16; even and odd sizes, so padding at all sides; a last unit
# with fewer images; an odd number of pixels; rows shorter than the filters; one pixel
SHAPES = [
    (32, 32, 16, 3, 1, False, 3, 13, 12),
    (16, 96, 24, 3, 2, True, 2, 12, 14),
    (24, 144, 24, 3, 1, True, 5, 9, 7),
    (24, 144, 40, 5, 2, True, 5, 11, 10),
    (40, 240, 40, 5, 1, True, 6, 8, 8),
    (64, 64, 112, 5, 1, True, 9, 5, 5),
    (8, 16, 8, 3, 2, True, 1, 1, 1),
    (8, 32, 16, 5, 2, True, 1, 3, 2),
    (16, 48, 8, 5, 1, True, 2, 1, 40),
    # in strips of a few rows
    (8, 48, 8, 5, 1, True, 1, 33, 400),
    (16, 48, 24, 3, 2, True, 2, 64, 64),
    (8, 48, 16, 5, 2, True, 1, 61, 120),
    (32, 32, 16, 3, 1, False, 1, 70, 64),
]


def tensors(inputs, inner, outputs, kernel, stride, expands, batch, height, width):
    """Return x, weights, the gradient of the output, and the last arguments."""
    generator = torch.Generator().manual_seed(height)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    # of a scale at which ReLU6 clips at both ends
    expand = (normal(inner, inputs, 1, 1) * 3 / inputs**0.5, normal(inner))
    weights = block.Weights(
        *(expand if expands else (None, None)),
        *(normal(inner, 1, kernel, kernel), normal(inner)),
        *(normal(outputs, inner, 1, 1), normal(outputs)),
    )
    x = normal(batch, inputs, height, width)
    grad = normal(batch, outputs, -(-height // stride), -(-width // stride))
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    return x, weights, grad, (stride, stride == 1 and inputs == outputs)


def step(function, x, weights, grad, last):
    """Return the output and the gradients of x and of the weights."""
    x, *given = (None if t is None else t.detach().requires_grad_() for t in (x, *weights))
    y = function(x, block.Weights(*given), *last)
    wanted = [t for t in (x, *given) if t is not None]
    return y.detach(), *torch.autograd.grad(y, wanted, grad.to(y.dtype))


def exact(x, weights, grad, last):
    doubles = block.Weights(*(None if t is None else t.double() for t in weights))
    return step(block.reference, x.double(), doubles, grad.double(), last)


@pytest.mark.parametrize("version", ["FLOAT32", "AVX2", "PORTABLE"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_the_reference(shape, version, monkeypatch):
    monkeypatch.setattr(block, "FLOAT32", getattr(block, version))
    arguments = tensors(*shape)
    found = step(block.inverted_residual, *arguments)
    for one, other in zip(found, exact(*arguments), strict=True):
        assert relative(one, other) < 5e-6
    x, weights, _, last = arguments
    with torch.inference_mode():
        assert torch.equal(block.inverted_residual(x, weights, *last), found[0])


@pytest.mark.skipif(not kernels.multiplies_bfloat16(), reason="no bfloat16 instructions")
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_close_to_the_reference(shape):
    arguments = tensors(*shape)
    with torch.autocast("cpu", torch.bfloat16):
        found = step(block.inverted_residual, *arguments)
    assert found[0].dtype == torch.float32
    errors = [
        ((one - other).square().mean() / other.square().mean()).sqrt()
        for one, other in zip(found, exact(*arguments), strict=True)
    ]
    assert errors[0] < 0.02
    # the mask of ReLU6 differs where the rounded sum is on the other side of 0 or 6
    assert 1e-3 < max(errors) < 0.12


@pytest.mark.skipif(not kernels.multiplies_bfloat16(), reason="no bfloat16 instructions")
def test_autocasts_own_type_is_accepted():
    x, weights, _, last = tensors(*SHAPES[2])
    x = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = block.inverted_residual(x, weights, *last)
        assert torch.equal(y, block.inverted_residual(x.float(), weights, *last))
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[3]])
def test_results_do_not_depend_on_the_number_of_threads(shape, threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(step(block.inverted_residual, *tensors(*shape)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_memory_format_does_not_matter():
    x, weights, grad, last = tensors(*SHAPES[2])
    wanted = step(block.inverted_residual, x, weights, grad, last)
    last_channels = block.Weights(*(t.contiguous() for t in weights))
    found = step(block.inverted_residual, x.contiguous(), last_channels, grad.contiguous(), last)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    wide = torch.cat([x, x], 1)[:, :24]  # a view of a larger tensor
    assert torch.equal(block.inverted_residual(wide, weights, *last), wanted[0])
    one = torch.ones(()).expand(grad.shape)  # a gradient expanded from one number
    for a, b in zip(
        step(block.inverted_residual, x, weights, one, last),
        exact(x, weights, one, last),
        strict=True,
    ):
        assert relative(a, b) < 5e-6


def test_the_gradient_of_the_input_is_computed_only_if_required():
    x, weights, grad, last = tensors(*SHAPES[2])
    wanted = step(block.inverted_residual, x, weights, grad, last)
    trained = [t.requires_grad_() for t in weights]
    found = torch.autograd.grad(block.inverted_residual(x, weights, *last), trained, grad)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted[2:], strict=True))
    # frozen weights, for heat maps
    frozen = block.Weights(*(t.detach() for t in weights))
    x.requires_grad_()
    (by_x,) = torch.autograd.grad(block.inverted_residual(x, frozen, *last), x, grad)
    assert torch.equal(by_x, wanted[1])
    assert not block.inverted_residual(x.detach(), frozen, *last).requires_grad


def test_other_shapes_and_types_fall_back_to_pytorch():
    def fused(x, weights, grad, last):
        y = block.inverted_residual(x.requires_grad_(), weights, *last)
        return y.grad_fn.name() == "_BlockBackward"

    assert fused(*tensors(*SHAPES[2]))
    assert not fused(*tensors(12, 48, 8, 3, 1, True, 1, 4, 4))  # 12 is no multiple of 8
    assert not fused(*tensors(8, 40, 8, 3, 1, True, 1, 4, 4))  # 40 is no multiple of 16
    assert not fused(*tensors(8, 48, 8, 7, 1, True, 1, 4, 4))
    assert not fused(*tensors(8, 48, 8, 3, 3, True, 1, 4, 4))
    assert not fused(*tensors(8, 48, 8, 3, 1, True, 0, 4, 4))


def test_without_kernels_pytorch_is_used(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: None)
    x, weights, _, last = tensors(*SHAPES[2])
    assert torch.equal(
        block.inverted_residual(x, weights, *last), block.reference(x, weights, *last)
    )


def test_nan_is_propagated():
    x, weights, grad, last = tensors(*SHAPES[2])
    x[1, 2, 3, 3] = float("nan")
    y, _, by_expand, *_ = step(block.inverted_residual, x, weights, grad, last)
    assert y[1].isnan().any()
    assert not y[0].isnan().any()
    assert by_expand.isnan().any()


def test_second_derivative_is_refused():
    x, weights, _, last = tensors(*SHAPES[2])
    y = block.inverted_residual(x.requires_grad_(), weights, *last)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
