from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from peewit.errors import UsageError
from peewit.models.registry import MODELS, build, minimum_size, native_size


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 10])
def test_every_model_accepts_its_smallest_images(name: str, channels: int, classes: int) -> None:
    size = minimum_size(name)
    assert size <= native_size(name)
    if channels == 1 and MODELS[name].normalisation:
        with pytest.raises(UsageError, match="RGB"):
            build(name, (size, size + 3, channels), classes, seed=0)
        return
    model = build(name, (size, size + 3, channels), classes, seed=0)
    model.train()
    assert model(torch.rand(2, channels, size, size + 3)).shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_weights_depend_on_the_seed_and_not_on_the_global_random_state(name: str) -> None:
    size = native_size(name)
    torch.manual_seed(1)
    one = build(name, (size, size, 3), 10, seed=5)
    torch.manual_seed(2)
    torch.rand(7)
    two = build(name, (size, size, 3), 10, seed=5)
    other = build(name, (size, size, 3), 10, seed=6)
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", MODELS)
def test_building_does_not_change_the_global_random_state(name: str) -> None:
    size = native_size(name)
    before = torch.get_rng_state()
    build(name, (size, size, 3), 10, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_in_channels_last_memory(name: str) -> None:
    size = native_size(name)
    for parameter in build(name, (size, size, 3), 10, seed=0).parameters():
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_model_is_refused_with_a_list_of_models() -> None:
    with pytest.raises(UsageError, match=r"there is no model 'resnet'; choose one of: .*tutorial"):
        build("resnet", (32, 32, 3), 10, seed=0)


def test_images_that_are_too_small_are_refused_with_the_required_size() -> None:
    with pytest.raises(UsageError, match=r"8 x 8 pixels .*too small.* 22 x 22.* 32"):
        build("tutorial", (8, 8, 1), 10, seed=0)
    with pytest.raises(UsageError, match="too small"):
        build("tutorial", (40, 21, 3), 10, seed=0)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(classes: int) -> None:
    with pytest.raises(UsageError, match=f"{classes} class.* at least 2"):
        build("tutorial", (32, 32, 3), classes, seed=0)


def test_images_without_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="0 channels"):
        build("tutorial", (32, 32, 0), 10, seed=0)


def test_listing_the_models_does_not_import_pytorch() -> None:
    code = (
        "import sys; from peewit.models.registry import MODELS; "
        "print(len(MODELS), 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [str(len(MODELS)), "False"]
