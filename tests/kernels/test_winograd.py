"""Winograd's 3x3 convolution against PyTorch's in double precision."""

import pytest
import torch
from torch.nn import functional as F

from peewit import kernels
from peewit.kernels import library, winograd
from tensors import relative

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the kernels were not compiled (no C compiler)"
)

# (batch, in, out, height, width): whole and partial tiles of 4x4, less than one tile, one pixel;
# whole and partial groups of 32 channels; more tiles than one chunk (192)
SHAPES = [
    (3, 64, 64, 32, 32),
    (2, 8, 8, 8, 8),
    (1, 24, 64, 31, 31),
    (5, 64, 40, 15, 15),
    (2, 40, 24, 7, 7),
    (4, 64, 128, 1, 1),
    (1, 8, 24, 33, 17),
    (2, 16, 8, 2, 9),
    (13, 72, 104, 16, 16),
    (1, 1032, 16, 5, 4),
]


@pytest.fixture
def always(monkeypatch):
    """Use Winograd's convolution whenever it is possible, even if it is slower."""
    monkeypatch.setattr(winograd, "pays", lambda n, i, o, *_: i % 8 == o % 8 == 0)


def tensors(batch, inputs, outputs, height, width):
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(batch, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    grad = torch.randn(batch, outputs, height, width, generator=generator)
    return [t.contiguous(memory_format=torch.channels_last) for t in (x, weight, grad)]


def step(x, weight, grad):
    """Return the convolution and both gradients; exact if the arguments are doubles."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = kernels.conv3x3(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_direct_convolution(shape):
    x, weight, grad = tensors(*shape)
    exact, by_x, by_weight = step(x.double(), weight.double(), grad.double())
    y, grad_x, grad_weight = step(x, weight, grad)
    # the transforms multiply by up to 8 and divide by as much, which loses one or two digits more
    # than direct convolution
    assert relative(y, exact) < 2e-5
    assert relative(grad_x, by_x) < 2e-5
    assert relative(grad_weight, by_weight) < 3e-5
    with torch.inference_mode():
        assert torch.equal(kernels.conv3x3(x, weight), y)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_close_to_direct_convolution(shape):
    x, weight, grad = tensors(*shape)
    exact = step(x.double(), weight.double(), grad.double())
    y = winograd.forward(x, weight, bfloat16=True)
    found = (y, *winograd.gradients(x, weight, grad, True, True, bfloat16=True))
    for one, other in zip(found, exact, strict=True):
        # bfloat16 has 8 significant bits, and the transforms lose two or three: a smaller error
        # would mean that it was not used, a larger one that the result is wrong
        error = ((one - other).square().mean() / other.square().mean()).sqrt()
        assert 1e-3 < error < 4e-2
        assert relative(one, other) < 0.12


@pytest.mark.usefixtures("always")
def test_bfloat16_does_not_depend_on_batch_and_threads(threads):
    x, weight, grad = tensors(9, 40, 72, 15, 15)
    results = []
    for count in (1, 2, 3):
        threads(count)
        y = winograd.forward(x, weight, bfloat16=True)
        results.append((y, *winograd.gradients(x, weight, grad, True, True, bfloat16=True)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert torch.equal(results[0][0][4:5], winograd.forward(x[4:5], weight, bfloat16=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bfloat16_propagates_nan_and_infinity(value):
    x, weight, grad = tensors(4, 24, 24, 16, 16)
    x[1, 2, 3, 3] = value
    y = winograd.forward(x, weight, bfloat16=True)
    grad_weight = winograd.gradients(x, weight, grad, False, True, bfloat16=True)[1]
    assert not y[1].isfinite().all()
    assert y[0].isfinite().all()
    assert not grad_weight.isfinite().all()


@pytest.mark.usefixtures("always")
def test_memory_format_does_not_matter():
    x, weight, grad = tensors(2, 16, 24, 9, 9)
    wanted = step(x, weight, grad)
    found = step(x.contiguous(), weight.contiguous(), grad.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    # a view of a larger tensor, and a gradient expanded from one number
    wide = torch.cat([x, x], 1)[:, :16]
    assert torch.equal(kernels.conv3x3(wide, weight), wanted[0])
    one = torch.ones(()).expand(2, 24, 9, 9)
    exact = F.conv_transpose2d(one.double(), weight.double(), padding=1)
    assert relative(step(x, weight, one)[1], exact) < 1e-5


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(7, 40, 72, 15, 15), (1, 64, 64, 4, 4), (30, 24, 8, 8, 8)])
def test_results_do_not_depend_on_the_number_of_threads(shape, threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(step(*tensors(*shape)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("always")
def test_an_image_does_not_depend_on_the_rest_of_its_batch():
    x, weight, _ = tensors(9, 40, 40, 15, 15)
    assert torch.equal(kernels.conv3x3(x, weight)[4:5], kernels.conv3x3(x[4:5], weight))


@pytest.mark.usefixtures("always")
def test_only_required_gradients_are_computed(monkeypatch):
    x, weight, grad = tensors(2, 8, 8, 8, 8)
    kernels.conv3x3(x, weight.requires_grad_()).backward(grad)
    assert x.grad is None
    assert weight.grad is not None
    assert winograd.gradients(x, weight, grad, True, False)[1] is None
    # a frozen layer inside a network
    monkeypatch.setattr(winograd, "_gradient_of_weight", None)
    x.requires_grad_()
    kernels.conv3x3(x, weight.detach()).backward(grad)
    assert x.grad is not None


def test_it_is_used_only_if_it_pays():
    def name(*shape):
        x, weight, _ = tensors(*shape)
        return kernels.conv3x3(x, weight.requires_grad_()).grad_fn.name()

    def direct(*shape):
        x, weight, _ = tensors(*shape)
        return torch.equal(kernels.conv3x3(x, weight), F.conv2d(x, weight, padding=1))

    assert name(4, 24, 64, 16, 16) == "_Conv3x3Backward"
    assert not direct(4, 24, 64, 16, 16)
    assert direct(4, 20, 64, 16, 16)  # 20 is not a multiple of 8
    assert direct(4, 64, 20, 16, 16)
    assert direct(4, 8, 64, 16, 16)
    assert direct(100, 64, 64, 1, 1)
    assert direct(1, 64, 64, 8, 8)
    assert kernels.conv3x3(torch.ones(0, 64, 8, 8), torch.ones(64, 64, 3, 3)).shape == (0, 64, 8, 8)


def test_gradients_are_correct_if_it_is_not_used():
    x, weight, grad = tensors(2, 3, 20, 9, 9)
    exact, by_x, by_weight = step(x.double(), weight.double(), grad.double())
    y, grad_x, grad_weight = step(x, weight, grad)
    assert relative(y, exact) < 1e-6
    assert relative(grad_x, by_x) < 1e-6
    assert relative(grad_weight, by_weight) < 1e-6


def test_other_types_fall_back_to_pytorch():
    x, weight, _ = tensors(4, 24, 64, 16, 16)
    assert kernels.conv3x3(x.double(), weight.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.conv3x3(x, weight).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="channels"):
        kernels.conv3x3(x, weight[:, :16])


def test_without_kernels_pytorch_is_used(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: None)
    x, weight, _ = tensors(4, 24, 64, 16, 16)
    weight.requires_grad_()
    y = kernels.conv3x3(x, weight)
    assert y.grad_fn.name() == "ConvolutionBackward0"
    assert torch.equal(y, winograd.reference(x, weight))


def test_nan_is_propagated():
    x, weight, grad = tensors(4, 24, 24, 16, 16)
    x[1, 2, 3, 3] = float("nan")
    y, _, grad_weight = step(x, weight, grad)
    assert y[1].isnan().any()
    assert not y[0].isnan().any()
    assert grad_weight.isnan().any()


def test_second_derivative_is_refused():
    x, weight, _ = tensors(4, 24, 24, 16, 16)
    x.requires_grad_()
    (first,) = torch.autograd.grad(kernels.conv3x3(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_workspace_is_kept_and_grows():
    first = winograd._workspace(100, 7)
    assert [part.numel() for part in first] == [112, 16]
    again = winograd._workspace(100)
    assert again[0].data_ptr() == first[0].data_ptr()
    larger = winograd._workspace(winograd._memory.floats.numel() + 1)
    assert larger[0].numel() == winograd._memory.floats.numel()
