"""The first convolution with ReLU6 against PyTorch's in double precision."""

from __future__ import annotations

import pytest
import torch

from peewit import kernels
from peewit.kernels import first_convolution, inverted_residual, library
from peewit.kernels.first_convolution import conv_relu6
from tensors import relative

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the kernels were not compiled (no C compiler)"
)

# (batch, in, out, height, width, stride): padding at both ends and only after the end, images
# smaller than the filters
SHAPES = [
    (3, 3, 32, 33, 32, 2),
    (2, 3, 32, 64, 30, 2),
    (3, 3, 48, 9, 7, 1),
    (1, 1, 16, 5, 4, 1),
    (2, 3, 32, 1, 1, 2),
    (1, 3, 32, 2, 2, 2),
]


def tensors(batch, inputs, outputs, height, width, stride):
    """Return x, weight, bias, the gradient of the output, and the stride."""
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(batch, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    rows, columns = -(-height // stride), -(-width // stride)
    return x, weight, bias, torch.randn(batch, outputs, rows, columns, generator=generator), stride


def step(function, x, weight, bias, grad, stride):
    """Return the output and the gradients of weight and bias."""
    weight, bias = (t.detach().requires_grad_() for t in (weight, bias))
    y = function(x, weight, bias, stride)
    return y.detach(), *torch.autograd.grad(y, (weight, bias), grad.to(y.dtype))


def exact(*arguments):
    *doubles, stride = (t.double() if isinstance(t, torch.Tensor) else t for t in arguments)
    return step(first_convolution.reference, *doubles, stride)


@pytest.mark.parametrize("version", ["FLOAT32", "AVX2", "PORTABLE"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_the_reference(shape, version, monkeypatch):
    monkeypatch.setattr(inverted_residual, "FLOAT32", getattr(inverted_residual, version))
    arguments = tensors(*shape)
    found = step(conv_relu6, *arguments)
    for one, other in zip(found, exact(*arguments), strict=True):
        assert relative(one, other) < 3e-6
    x, weight, bias, _, stride = arguments
    with torch.inference_mode():
        assert torch.equal(conv_relu6(x, weight, bias, stride), found[0])


@pytest.mark.skipif(not kernels.multiplies_bfloat16(), reason="no bfloat16 instructions")
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_close_to_the_reference(shape):
    arguments = tensors(*shape)
    with torch.autocast("cpu", torch.bfloat16):
        y, *gradients = step(conv_relu6, *arguments)
    wanted, *exact_gradients = exact(*arguments)
    assert 1e-4 < relative(y, wanted) < 0.02
    # the mask of ReLU6 differs where the rounded sum is on the other side of 0 or 6
    for one, other in zip(gradients, exact_gradients, strict=True):
        assert relative(one, other) < 0.15


def test_results_do_not_depend_on_threads_and_memory_format(threads):
    x, *rest = tensors(*SHAPES[0])
    wanted = step(conv_relu6, x, *rest)
    for count in (1, 2, 3):
        threads(count)
        found = step(conv_relu6, x.contiguous(memory_format=torch.channels_last), *rest)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_only_images_without_gradient_use_the_kernels(monkeypatch):
    x, weight, bias, _, stride = tensors(*SHAPES[0])
    weight.requires_grad_()

    def fused(x, weight, stride=stride):
        return conv_relu6(x, weight, bias[: len(weight)], stride).grad_fn.name()

    assert fused(x, weight) == "_FirstConvolutionBackward"
    assert fused(x.clone().requires_grad_(), weight) != "_FirstConvolutionBackward"
    assert fused(x, weight[:20]) != "_FirstConvolutionBackward"
    assert fused(x, weight, 3) != "_FirstConvolutionBackward"
    monkeypatch.setattr(library, "load", lambda: None)
    assert fused(x, weight) != "_FirstConvolutionBackward"


def test_nan_is_propagated():
    x, *rest = tensors(*SHAPES[0])
    x[1, 2, 3, 3] = float("nan")
    y, by_weight, _ = step(conv_relu6, x, *rest)
    assert y[1].isnan().any()
    assert not y[0].isnan().any()
    assert by_weight.isnan().any()
