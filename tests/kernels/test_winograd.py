"""The 3x3 convolution by Winograd's way against PyTorch's in double precision."""

import pytest
import torch
from torch.nn import functional as F

from peewit import kernels
from peewit.kernels import winograd

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the native kernels were not built here (no C compiler)"
)

# (batch, in, out, height, width)
SHAPES = [
    (3, 64, 64, 32, 32),
    (2, 8, 8, 8, 8),
    (1, 24, 64, 31, 31),
    (5, 64, 40, 15, 15),
    (2, 40, 24, 7, 7),
    (4, 64, 128, 1, 1),
    (1, 8, 24, 33, 17),
    (2, 16, 8, 2, 9),
]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Winograd's way wherever it is possible, also where it does not pay."""
    monkeypatch.setattr(winograd, "pays", lambda i, o, *_: i % 8 == o % 8 == 0)


def tensors(batch, inputs, outputs, height, width):
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(batch, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    grad = torch.randn(batch, outputs, height, width, generator=generator)
    return [t.contiguous(memory_format=torch.channels_last) for t in (x, weight, grad)]


def relative(found, exact):
    """Return the largest difference in units of the largest exact value."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_direct_sum(shape):
    x, weight, grad = tensors(*shape)
    exact_x, exact_weight = (t.double().requires_grad_() for t in (x, weight))
    x.requires_grad_()
    weight.requires_grad_()
    y = kernels.conv3x3(x, weight)
    exact = F.conv2d(exact_x, exact_weight, padding=1)
    y.backward(grad)
    exact.backward(grad.double())
    assert y.grad_fn.name() == "_Conv3x3Backward"
    assert relative(y, exact) < 1e-5
    assert relative(x.grad, exact_x.grad) < 1e-5
    assert relative(weight.grad, exact_weight.grad) < 3e-5
