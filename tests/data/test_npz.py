"""Arrays, .npz files, lists of files and Pillow's pictures as data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import peewit
from made_sources import files_of, write
from peewit.data import Dataset
from peewit.errors import PeewitError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
    ],
)
def test_parts(names: tuple[str, ...], tmp_path: Path) -> None:
    arrays = (IMAGES, LABELS[:, None], IMAGES[:3], LABELS[:3])
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **dict(zip(names, arrays, strict=True)))
    train, test, notes = peewit.load(str(path))
    assert test is not None
    assert (train.images == IMAGES).all()
    assert train.labels.tolist() == LABELS.tolist()
    assert (test.images == IMAGES[:3]).all()
    assert tuple(train.class_names) == tuple(test.class_names) == ("0", "1", "2")
    assert notes == ()


def test_validation_images_are_used_for_training(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train_images=IMAGES, train_labels=LABELS, val_images=IMAGES, val_labels=LABELS)
    train, test, notes = peewit.load(str(path))
    assert (len(train), test) == (12, None)
    assert "the 6 val images" in notes[0]


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y"), ("arr_0", "arr_1")])
def test_one_part(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{names[0]: IMAGES, names[1]: LABELS})
    train, test, _ = peewit.load(str(path))
    assert (len(train), test) == (6, None)


def test_names_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=LABELS, class_names=["x", "y", "z"])
    assert tuple(peewit.load(str(path)).train.class_names) == ("x", "y", "z")
    np.savez(path, images=IMAGES, labels=np.array(["b", "a", "10", "9", "b", "a"]))
    train = peewit.load(str(path)).train
    assert tuple(train.class_names) == ("9", "10", "a", "b")
    assert train.labels.tolist() == [3, 2, 1, 0, 3, 2]


@pytest.mark.parametrize(
    "images",
    [
        IMAGES.transpose(0, 3, 1, 2),
        IMAGES.astype(np.int64),
        IMAGES.astype(np.float32),
        IMAGES / 255,
        (IMAGES / 255).astype(np.float32),
    ],
    ids=["channels first", "int64", "float32", "0 to 1", "0 to 1, float32"],
)
def test_other_forms_of_images(images: Any) -> None:
    data = Dataset.from_arrays(images, LABELS)
    assert (data.images == IMAGES).all()
    assert Dataset.from_arrays(images[..., 0] if images.shape[3] == 3 else images, LABELS)


def test_grey_and_one_hot(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES[..., 0], labels=np.eye(3)[LABELS])
    train = peewit.load(str(path)).train
    assert train.image_shape == (4, 5, 1)
    assert train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": IMAGES}, "has no labelled training images: its arrays are a"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "labels do not match"),
        ({"images": IMAGES[0], "labels": LABELS}, "labels do not match"),
        ({"images": IMAGES[:, 0, 0], "labels": LABELS}, "are not images"),
        ({"images": IMAGES - 300.5, "labels": LABELS}, "have values from"),
        ({"images": IMAGES * np.nan, "labels": LABELS}, "have values from"),
        ({"images": IMAGES, "labels": LABELS + 0.5}, "neither numbers nor names"),
        ({"images": IMAGES, "labels": LABELS, "class_names": ["a"]}, "go from 0 to 2 for 1 names"),
        ({"images": IMAGES, "labels": np.array([object()] * 6)}, "Python objects"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
            "classes that the training part does not have: 3",
        ),
    ],
)
def test_bad_arrays(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(PeewitError, match=said):
        peewit.load(str(path))


def test_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    content = path.read_bytes()
    for damaged in (content[:100], b"", content[:300] + bytes(20) + content[320:]):
        path.write_bytes(damaged)
        with pytest.raises(PeewitError, match="cannot read"):
            peewit.load(str(path))


def test_lists_of_files(tmp_path: Path) -> None:
    files = files_of({"here": 2, "there/deep": 1})
    write(tmp_path, files)
    paths = [tmp_path / name for name in files]
    data = Dataset.from_files(paths, ["x", "y", "x"])
    assert list(data.names or ()) == ["here/0.png", "here/1.png", "there/deep/0.png"]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.images[:][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert tuple(Dataset.from_files(map(str, paths), [10, 2, 10]).class_names) == ("2", "10")
    with pytest.raises(PeewitError, match="2 labels for 3 paths"):
        Dataset.from_files(paths, [1, 2])
    with pytest.raises(PeewitError, match="listed twice"):
        Dataset.from_files([*paths, paths[0]], [1, 2, 1, 2])
    with pytest.raises(PeewitError, match=r"cannot read .*gone\.png: no such file"):
        Dataset.from_files([*paths, tmp_path / "gone.png"], [1, 2, 1, 2])


def test_pictures_of_pillow() -> None:
    modes = ["RGB", "L", "P", "CMYK", "RGBA", "LA", "YCbCr"]
    pictures = [Image.new("RGB", (8, 6), (204, 204, 204)).convert(mode) for mode in modes]
    pictures.append(Image.fromarray(np.full((6, 8), 204 * 257, np.uint16)))
    data = Dataset.from_pictures(pictures, ["a", "b"] * 4)
    for mode, pixels in zip([*modes, "I;16"], data.images[:], strict=True):
        assert np.abs(pixels.astype(int) - 204).max() <= 2, mode
    # what a camera that was turned writes: the orientation is applied once
    turned = Image.new("RGB", (9, 3), (255, 0, 0))
    turned.paste((0, 0, 255), (0, 0, 3, 3))
    turned.getexif()[274] = 6
    (upright, _) = Dataset.from_pictures([turned, pictures[0]], [0, 1]).images.at(9, 3, "stretch")[
        :
    ]
    assert upright[:, 0].tolist() == [[0, 0, 255]] * 3 + [[255, 0, 0]] * 6
    with pytest.raises(PeewitError, match="1 labels for 8 pictures"):
        Dataset.from_pictures(pictures, [1])
