"""The fused step of the fast networks against PyTorch's own layers in double precision."""

import copy

import pytest
import torch
from torch import nn

from peewit import kernels
from peewit.kernels import fast_stage

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the native kernels were not built here (no C compiler)"
)

# (in, out, height, width, pool)
SHAPES = [
    (24, 64, 32, 32, 2),
    (64, 64, 16, 16, 1),
    (64, 128, 15, 15, 2),
    (64, 72, 7, 7, 1),
    (3, 5, 33, 17, 2),
    (64, 64, 2, 3, 2),
]


def layers(inputs, outputs, scale=True):
    generator = torch.Generator().manual_seed(outputs)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.6)
    with torch.no_grad():
        for tensor in (*conv.parameters(), *norm.parameters(), norm.running_mean):
            tensor.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        if not scale:
            norm.weight.fill_(1).requires_grad_(False)
    return conv.to(memory_format=torch.channels_last), norm


def images(inputs, height, width, count=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, inputs, height, width, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def relative(found, exact):
    """Return the largest difference in units of the largest exact value."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_step_is_that_of_the_layers(shape, scale):
    inputs, outputs, height, width, pool = shape
    conv, norm = layers(inputs, outputs, scale)
    exact_conv, exact_norm = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = images(inputs, height, width).requires_grad_()
    exact_x = x.detach().double().requires_grad_()

    out = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
    exact = fast_stage.reference(exact_x, exact_conv, exact_norm, pool)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(gradient)
    exact.backward(gradient.double())

    assert out.grad_fn.name() == "_FastStageBackward"
    assert relative(out, exact) < 3e-5
    assert relative(norm.running_mean, exact_norm.running_mean) < 1e-5
    assert relative(norm.running_var, exact_norm.running_var) < 1e-5
    assert norm.num_batches_tracked == exact_norm.num_batches_tracked == 1
    assert relative(x.grad, exact_x.grad) < 3e-5
    assert relative(conv.weight.grad, exact_conv.weight.grad) < 3e-5
    assert relative(norm.bias.grad, exact_norm.bias.grad) < 3e-5
    if scale:
        assert relative(norm.weight.grad, exact_norm.weight.grad) < 3e-5
    else:
        assert norm.weight.grad is None
