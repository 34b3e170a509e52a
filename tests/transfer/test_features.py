"""Features are the same by every engine, and are computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.images.preprocessing import Preprocessing
from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.models.registry import build
from peewit.transfer import engine, features
from peewit.transfer.features import Features

NAME = "efficientnet-lite0"
RULE = Preprocessing(40, 48, 3, (127 / 255,) * 3, (128 / 255,) * 3)


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("shape", [(40, 48, 3), (40, 48, 1), (70, 30, 3)])
def test_engines_agree(shape: tuple[int, ...]) -> None:
    network = build(NAME, (40, 48, 3), 2, seed=0).eval()
    assert isinstance(network, EfficientNetLite)
    pictures = images(3, *shape)
    torch_s, openvino_s = (
        make(network, RULE)(pictures) for make in (engine._torch, engine._openvino)
    )
    assert torch_s.shape == openvino_s.shape == (3, 1280)
    assert np.abs(torch_s - openvino_s).max() < 1e-5 * np.abs(torch_s).max()


def test_each_picture_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counting(*arguments: Any) -> Any:
        def compute(pictures: np.ndarray) -> np.ndarray:
            computed.append(len(pictures))
            return np.repeat(pictures.mean((1, 2, 3), dtype=np.float32)[:, None], 1280, 1)

        return compute

    monkeypatch.setattr(features, "fastest", counting)
    pictures = images(40, 40, 48, 3)
    dataset = Dataset(pictures, np.arange(40) % 2, ["a", "b"])
    repeated = dataset.take([3, 3, 5])
    first = Features(NAME, RULE).of(repeated)
    assert sum(computed) == 2
    np.testing.assert_array_equal(first[0], first[1])
    shown: list[int] = []
    found = Features(NAME, RULE, lambda progress: shown.append(progress.done)).of(dataset)
    assert (sum(computed), shown[-1]) == (40, 38)  # the other two are in the cache
    np.testing.assert_allclose(found[:, 0], pictures.mean((1, 2, 3)), rtol=1e-6)
    assert len(Features(NAME, RULE).of(dataset)) == 40
    assert sum(computed) == 40


def test_what_was_computed_before_a_stop_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(progress: Any) -> None:
        if progress.done >= 2 * features.BATCH:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        features, "fastest", lambda *_: lambda pictures: np.ones((len(pictures), 1280), np.float32)
    )
    dataset = Dataset(images(60, 4, 4, 3), np.arange(60) % 2, ["a", "b"])
    with pytest.raises(KeyboardInterrupt):
        Features(NAME, RULE, stop).of(dataset)
    done: list[int] = []
    Features(NAME, RULE, lambda progress: done.append(progress.total)).of(dataset)
    assert done[0] == 60 - 2 * features.BATCH
