"""The fused stage of the tutorial's network against PyTorch's layers in double precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from peewit import kernels
from peewit.kernels import library, relu_norm_pool
from tensors import images, relative

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the kernels were not compiled (no C compiler)"
)

# (in, out, height, width): the tutorial's three stages; odd and even sizes; channels below the
# kernels' block of 16, multiples of it, and others
SHAPES = [(3, 64, 32, 32), (64, 128, 15, 15), (128, 64, 6, 6), (1, 5, 9, 8), (4, 24, 4, 11)]


def layers(inputs, outputs):
    generator = torch.Generator().manual_seed(outputs)
    conv = nn.Conv2d(inputs, outputs, 3).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    with torch.no_grad():
        for tensor in (*conv.parameters(), *norm.parameters(), norm.running_mean):
            tensor.normal_(generator=generator)  # about half of the scales are negative
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return conv, norm


def reference(x, conv, norm):
    return F.max_pool2d(norm(F.relu(conv(x))), 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_step_equals_the_layers(shape):
    inputs, outputs, height, width = shape
    conv, norm = layers(inputs, outputs)
    exact_conv, exact_norm = copy.deepcopy(conv).double(), copy.deepcopy(norm).double()
    x = images(inputs, height, width).requires_grad_()
    exact_x = x.detach().double().requires_grad_()

    out = kernels.conv_relu_norm_pool(x, conv, norm)
    exact = reference(exact_x, exact_conv, exact_norm)
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(gradient)
    exact.backward(gradient.double())

    assert out.grad_fn.name() == "_StageBackward"
    # float32 rounds at 6e-8; sums over hundreds of terms of both signs lose another digit
    assert relative(out, exact) < 3e-6
    assert relative(norm.running_mean, exact_norm.running_mean) < 1e-6
    assert relative(norm.running_var, exact_norm.running_var) < 1e-6
    assert norm.num_batches_tracked == exact_norm.num_batches_tracked == 1
    assert relative(x.grad, exact_x.grad) < 1e-5
    pairs = zip(
        (*conv.parameters(), *norm.parameters()),
        (*exact_conv.parameters(), *exact_norm.parameters()),
        strict=True,
    )
    for found, wanted in pairs:
        assert relative(found.grad, wanted.grad) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_equals_the_layers(shape):
    inputs, outputs, height, width = shape
    conv, norm = (layer.eval() for layer in layers(inputs, outputs))
    before = copy.deepcopy(norm.state_dict())
    x = images(inputs, height, width)
    with torch.no_grad():
        out = kernels.conv_relu_norm_pool(x, conv, norm)
        exact = reference(x.double(), copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
    assert relative(out, exact) < 3e-6
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_training_and_inference_use_the_kernels(monkeypatch):
    """The comparisons above would also pass if everything fell back to PyTorch."""
    conv, norm = layers(3, 8)
    used = []
    monkeypatch.setattr(relu_norm_pool, "_inference", lambda x, norm: used.append("inference") or x)
    with torch.no_grad():
        kernels.conv_relu_norm_pool(images(3, 8, 8), conv, norm.eval())
    assert used == ["inference"]
    monkeypatch.setattr(library, "load", lambda: None)
    out = kernels.conv_relu_norm_pool(images(3, 8, 8), conv, norm.train())
    assert out.grad_fn.name() == "MaxPool2DWithIndicesBackward0"


def test_images_get_no_gradient():
    conv, norm = layers(3, 8)
    x = images(3, 8, 8)
    kernels.conv_relu_norm_pool(x, conv, norm).sum().backward()
    assert x.grad is None
    assert conv.weight.grad is not None


def test_memory_format_of_the_images_does_not_matter():
    conv, norm = layers(4, 8)
    x = images(4, 9, 9)
    assert torch.equal(
        kernels.conv_relu_norm_pool(x, conv, norm),
        kernels.conv_relu_norm_pool(x.contiguous(), conv, norm),
    )


def test_fused_passes_do_not_depend_on_the_number_of_threads():
    kernel = library.load()
    y = images(24, 7, 9)
    n, channels, height, width = y.shape
    results = []
    for threads in (1, 2, 3):
        _, norm = layers(3, channels)
        pooled, chosen = torch.zeros(2, n, height // 2, width // 2, channels).unbind()
        place = torch.zeros(n, height // 2, width // 2, channels, dtype=torch.uint8)
        mean, inverse, *gradients = torch.zeros(5, channels).unbind()
        work = relu_norm_pool._workspace(n, channels)
        x = y.clone(memory_format=torch.channels_last)
        shape = (n, height, width, channels)
        kernel.relu_norm_pool_forward(
            x.data_ptr(),
            *shape,
            *(t.data_ptr() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)),
            *(0.01, 1e-3),
            *(t.data_ptr() for t in (pooled, chosen, place, mean, inverse, work)),
            threads,
        )
        kernel.relu_norm_pool_backward(
            x.data_ptr(),
            *shape,
            *(t.data_ptr() for t in (pooled, chosen, place, norm.weight, mean, inverse)),
            *(t.data_ptr() for t in (*gradients, work)),
            threads,
        )
        results.append([pooled, x, norm.running_var.clone(), *gradients])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nan_is_propagated():
    conv, norm = layers(3, 8)
    x = images(3, 8, 8)
    x[0, 0, 3, 3] = float("nan")
    assert kernels.conv_relu_norm_pool(x, conv, norm).isnan().any()


def test_second_backward_pass_of_a_step_is_refused():
    conv, norm = layers(3, 8)
    loss = kernels.conv_relu_norm_pool(images(3, 8, 8), conv, norm).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="activations were freed"):
        loss.backward()


def test_gradient_in_evaluation_mode_falls_back_to_pytorch():
    conv, norm = layers(3, 8)
    x = images(3, 8, 8).requires_grad_()
    kernels.conv_relu_norm_pool(x, conv, norm.eval()).sum().backward()
    assert x.grad.abs().sum() > 0


def test_other_precisions_fall_back_to_pytorch():
    conv, norm = layers(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = kernels.conv_relu_norm_pool(images(3, 8, 8), conv, norm)
    assert out.grad_fn.name() == "MaxPool2DWithIndicesBackward0"
    out.sum().backward()
    assert conv.weight.grad.isfinite().all()


def test_kernels_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("PEEWIT_KERNELS", "off")
    library.load.cache_clear()
    try:
        assert not kernels.available()
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
    assert kernels.available()
