"""The fused stage of the fast networks against PyTorch's layers in double precision."""

import copy

import pytest
import torch
from torch import nn

from peewit import kernels
from peewit.kernels import library, pool_norm_gelu, winograd
from tensors import images, relative

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the kernels were not compiled (no C compiler)"
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


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_step_equals_the_layers(shape, scale):
    inputs, outputs, height, width, pool = shape
    conv, norm = layers(inputs, outputs, scale)
    exact_conv, exact_norm = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = images(inputs, height, width).requires_grad_()
    exact_x = x.detach().double().requires_grad_()

    out = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
    exact = pool_norm_gelu.reference(exact_x, exact_conv, exact_norm, pool)
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


@pytest.mark.parametrize("pool", [1, 2])
def test_autocast_multiplies_in_bfloat16_if_the_processor_supports_it(pool, monkeypatch):
    monkeypatch.setattr(library, "multiplies_bfloat16", lambda: True)
    results = []
    for bfloat16 in (False, True):
        conv, norm = layers(64, 64)
        x = images(64, 16, 16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
        assert out.grad_fn.name() == "_FastStageBackward"
        assert out.dtype == torch.float32
        out.square().sum().backward()  # outside of autocast, as in training
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.no_grad():
            inference = kernels.conv_pool_norm_gelu(x, conv, norm.eval(), pool)
        results.append((out, x.grad, conv.weight.grad, norm.bias.grad, inference))
    # rounding can change which pixel of a window is the maximum and so receives the gradient
    limit = 0.08 if pool == 1 else 0.3
    for exact, near in zip(*results, strict=True):
        error = ((near - exact).square().mean() / exact.square().mean()).sqrt()
        assert 1e-4 < error < limit


def test_fused_pooling_equals_max_pool2d():
    x = images(64, 15, 17)
    weight = layers(64, 40)[0].weight.detach()
    y = winograd.forward(x, weight)
    pooled, place = winograd.forward_pooled(x, weight)
    wanted, index = torch.nn.functional.max_pool2d(y, 2, return_indices=True)
    assert torch.equal(pooled, wanted)
    row, column = index // 17 % 2, index % 17 % 2
    assert torch.equal(place.long(), 2 * row + column)
    # the first of equal values; NaN if any value of the window is NaN
    pooled, place = winograd.forward_pooled(torch.zeros_like(x), weight)
    assert not pooled.any()
    assert not place.any()
    x[1, 3, 5, 5] = float("nan")
    pooled, _ = winograd.forward_pooled(x, weight)
    assert pooled[1, :, 2, 2].isnan().all()
    assert not pooled[0].isnan().any()


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_equals_the_layers(shape):
    inputs, outputs, height, width, pool = shape
    conv, norm = (layer.eval() for layer in layers(inputs, outputs))
    before = copy.deepcopy(norm.state_dict())
    x = images(inputs, height, width)
    with torch.no_grad():
        out = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
        exact_layers = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
        exact = pool_norm_gelu.reference(x.double(), *exact_layers, pool)
    assert relative(out, exact) < 3e-5
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_precomputed_values_do_not_change_inference(shape, bfloat16, monkeypatch):
    monkeypatch.setattr(library, "multiplies_bfloat16", lambda: True)
    inputs, outputs, height, width, pool = shape
    conv, norm = (layer.eval() for layer in layers(inputs, outputs))
    x = images(inputs, height, width)
    fixed = pool_norm_gelu.Fixed.of(conv, norm)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        plain = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
        assert torch.equal(kernels.conv_pool_norm_gelu(x, conv, norm, pool, fixed), plain)


def test_precomputed_filters_are_not_transformed_again(monkeypatch):
    conv, norm = (layer.eval() for layer in layers(64, 64))
    x, fixed = images(64, 16, 16), pool_norm_gelu.Fixed.of(conv, norm)
    monkeypatch.setattr(winograd, "_transform", None)
    with torch.no_grad():
        for pool in (1, 2):
            kernels.conv_pool_norm_gelu(x, conv, norm, pool, fixed)
            with pytest.raises(TypeError):
                kernels.conv_pool_norm_gelu(x, conv, norm, pool)


def test_reference_equals_the_four_layers():
    conv, norm = layers(3, 8)
    x = images(3, 9, 9)
    wanted = nn.GELU("tanh")(copy.deepcopy(norm)(nn.MaxPool2d(2)(conv(x))))
    assert torch.equal(pool_norm_gelu.reference(x, conv, norm, 2), wanted)


def test_inference_uses_the_kernels(monkeypatch):
    """The comparison above would also pass if everything fell back to PyTorch."""
    conv, norm = layers(3, 8)
    monkeypatch.setattr(pool_norm_gelu, "_inference", lambda y, scale, shift, pool: "kernels")
    with torch.no_grad():
        assert kernels.conv_pool_norm_gelu(images(3, 8, 8), conv, norm.eval(), 2) == "kernels"


def test_frozen_filters_and_images_get_no_gradient():
    conv, norm = layers(24, 24)
    conv.weight.requires_grad_(False)
    x = images(24, 16, 16)
    kernels.conv_pool_norm_gelu(x, conv, norm, 2).sum().backward()
    assert x.grad is None
    assert conv.weight.grad is None
    assert norm.bias.grad is not None


def computed_by_pytorch(out):
    return out.grad_fn.name() == "GeluBackward0"


def test_unsupported_cases_fall_back_to_pytorch(monkeypatch):
    conv, norm = layers(24, 24)
    x = images(24, 16, 16).requires_grad_()
    # a gradient in evaluation mode, as for heat maps
    out = kernels.conv_pool_norm_gelu(x, conv, norm.eval(), 2)
    assert computed_by_pytorch(out)
    out.sum().backward()
    assert x.grad.abs().sum() > 0
    norm.train()
    monkeypatch.setattr(library, "multiplies_bfloat16", lambda: False)
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 2))
    monkeypatch.setattr(library, "multiplies_bfloat16", lambda: True)
    with torch.autocast("cpu", torch.float16):
        assert computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 2))
    assert computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 3))
    norm.momentum = None  # cumulative average over all steps
    assert computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 1))
    norm.momentum = 0.6
    assert not computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 2))
    monkeypatch.setattr(library, "load", lambda: None)
    assert computed_by_pytorch(kernels.conv_pool_norm_gelu(x, conv, norm, 2))
    double = (x.double(), conv.double(), norm.double())
    assert computed_by_pytorch(kernels.conv_pool_norm_gelu(*double, 2))


def test_one_value_per_channel_is_refused():
    conv, norm = layers(24, 24)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        kernels.conv_pool_norm_gelu(images(24, 2, 2, count=1), conv, norm, 2)


@pytest.mark.parametrize("pool", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(pool, threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        conv, norm = layers(24, 40)
        x = images(24, 15, 13).requires_grad_()
        out = kernels.conv_pool_norm_gelu(x, conv, norm, pool)
        out.square().sum().backward()
        grads = (x.grad, conv.weight.grad, norm.weight.grad, norm.bias.grad)
        results.append([out.detach(), *grads, norm.running_mean, norm.running_var])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("corner", range(4))
def test_pooling_propagates_nan(corner, monkeypatch):
    conv, norm = layers(3, 8)
    y = images(8, 8, 8)  # replaces the convolution's output, which would spread the NaN
    y[0, :, 2 + corner // 2, 2 + corner % 2] = float("nan")
    monkeypatch.setattr(winograd, "forward", lambda x, weight, **_: y)
    with torch.no_grad():
        out = kernels.conv_pool_norm_gelu(images(3, 8, 8), conv, norm.eval(), 2)
        assert out[0, :, 1, 1].isnan().all()
        assert out.isnan().sum() == 8
        assert kernels.conv_pool_norm_gelu(images(3, 8, 8), conv, norm.train(), 2).isnan().all()


def test_large_values_stay_finite():
    conv, norm = layers(3, 8)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-1e4, -100, -20, 0, 20, 100, 1e4, 1e10]))
        x = images(3, 8, 8)
        out = kernels.conv_pool_norm_gelu(x, conv, copy.deepcopy(norm), 2)
        wanted = pool_norm_gelu.reference(x, conv, norm, 2)
    torch.testing.assert_close(out, wanted)


def test_second_backward_pass_of_a_step_is_refused():
    conv, norm = layers(3, 8)
    loss = kernels.conv_pool_norm_gelu(images(3, 8, 8), conv, norm, 2).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="activations were freed"):
        loss.backward()
