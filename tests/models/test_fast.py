"""The network is airbench94's, for any image size, number of channels and classes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from peewit.models.fast import LOGITS_SCALE, ConvPoolNormGelu, Fast, fix
from peewit.models.flops import training_flops
from peewit.models.registry import FAST_WIDTHS, build


def make(
    name: str = "fast-xs", shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10
) -> Fast:
    model = build(name, shape, classes, seed=0)
    assert isinstance(model, Fast)
    return model


def by_hand(model: Fast, x: torch.Tensor) -> torch.Tensor:
    """Compute the network by PyTorch's functions."""
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.gelu(F.conv2d(x, model.whitening.weight, model.whitening.bias), approximate="tanh")
    for number, block in enumerate(model.blocks):
        assert isinstance(block, ConvPoolNormGelu)
        x = F.conv2d(x, block.conv.weight, padding=1)
        if number % 2 == 0:
            x = F.max_pool2d(x, 2)
        x = F.batch_norm(
            *(x, block.norm.running_mean, block.norm.running_var),
            *(torch.ones(x.shape[1]), block.norm.bias),
            *(model.training, 0.4, 1e-5),
        )
        x = F.gelu(x, approximate="tanh")
    return F.linear(x.flatten(2).max(2).values, model.head.weight) / 9


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (9, 31, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_equals_pytorchs_functions(shape: tuple[int, int, int], training: bool) -> None:
    x = torch.randn(4, shape[2], *shape[:2], generator=torch.manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    model, other = make(shape=shape).train(training), make(shape=shape).train(training)
    expected, logits = by_hand(other, x), model(x)
    assert logits.shape == (4, 10)
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-4)
    for name, value in other.named_buffers():  # the moving statistics
        if value.is_floating_point():
            assert torch.allclose(model.get_buffer(name), value, rtol=1e-3, atol=1e-4), name


def test_precomputed_weights_do_not_change_results_and_end_with_train() -> None:
    x = torch.randn(4, 3, 32, 32, generator=torch.manual_seed(0))
    model = make("fast-s").eval()
    stages = [module for module in model.modules() if isinstance(module, ConvPoolNormGelu)]
    with torch.inference_mode():
        before = model(x)
        fix(model)
        assert all(stage.fixed for stage in stages)
        assert torch.equal(model.eval()(x), before)
    assert not any(stage.fixed for stage in stages if stage.train())


def test_trainable_are_filters_biases_and_head() -> None:
    trained = {name for name, value in make().named_parameters() if value.requires_grad}
    blocks = [f"blocks.{number}" for number in range(6)]
    assert trained == {
        *("whitening.bias", "head.weight"),
        *(f"{block}.conv.weight" for block in blocks),
        *(f"{block}.norm.bias" for block in blocks),
    }


def test_the_first_filters_are_identities() -> None:
    model = make("fast-m")
    x = torch.randn(2, 24, 8, 8, generator=torch.manual_seed(0))
    for block, (inputs, outputs) in zip(
        model.blocks, [(24, 32), (32, 32), (32, 128)], strict=False
    ):
        assert isinstance(block, ConvPoolNormGelu)
        y = F.conv2d(x[:, :inputs], block.conv.weight, padding=1)
        assert y.shape[1] == outputs
        assert torch.equal(y[:, :inputs], x[:, :inputs])
        assert not torch.equal(y[:, 0], y[:, -1])
        x = y


def test_the_seed_determines_all_weights() -> None:
    one, same, other = (build("fast-xs", (32, 32, 3), 10, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_the_widths_grow() -> None:
    sizes = [
        sum(parameter.numel() for parameter in make(name).parameters()) for name in FAST_WIDTHS
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("classes", [2, 1000])
def test_any_number_of_classes(classes: int) -> None:
    assert make(classes=classes)(torch.zeros(2, 3, 32, 32)).shape == (2, classes)


def test_half_resolution_is_the_network_behind_whitened_patches_that_do_not_overlap() -> None:
    half, whole = make("fast-xs/2", (64, 64, 3)), make()
    x = torch.randn(2, 3, 64, 64, generator=torch.manual_seed(0))
    half.eval(), whole.eval()
    whole.load_state_dict(half.state_dict())
    patches = F.conv2d(x, half.whitening.weight, half.whitening.bias, stride=2)
    seen = whole.pool(whole.blocks(F.gelu(patches, approximate="tanh")))
    expected = whole.head(seen) * LOGITS_SCALE
    torch.testing.assert_close(half(x), expected)
    assert half(x[:, :, :63, :63]).shape == (2, 10)


def test_half_resolution_costs_no_more_arithmetic() -> None:
    costs = [
        training_flops(build(name, (size, size, 3), 10, 0), (size, size, 3))
        for name, size in (("fast-xs/2", 64), ("fast-xs", 32))
    ]
    assert costs[0] == costs[1]
