from __future__ import annotations

import numpy as np
import pytest

from made_data import noise
from peewit.data.dataset import Dataset
from peewit.data.duplicates import also_in, copies_named, labelled_differently


def with_images(images: np.ndarray, classes: int = 3) -> Dataset:
    names = [str(number) for number in range(classes)]
    return Dataset(images, np.arange(len(images)) % classes, names)


@pytest.mark.parametrize("channels", [1, 3])
def test_exact_copies_are_found_whatever_their_label_and_place(channels: int) -> None:
    train, test = noise(700, 8, channels), noise(300, 8, channels, seed=1)
    images = test.images.copy()
    images[7], images[200], images[299] = train.images[699], train.images[0], train.images[0]
    assert also_in(with_images(images), train).tolist() == [7, 200, 299]
    # one that differs in a single pixel by 1 is another image
    images[7, 3, 4, 0] ^= 1
    assert also_in(with_images(images), train).tolist() == [200, 299]
    assert also_in(test, train).tolist() == []
    assert also_in(train, train).tolist() == list(range(700))


def test_images_of_another_shape_are_never_copies() -> None:
    square, flat = np.zeros((2, 4, 4, 1), np.uint8), np.zeros((2, 2, 8, 1), np.uint8)
    assert also_in(with_images(square), with_images(flat)).tolist() == []
    assert also_in(with_images(square[:0]), with_images(square)).tolist() == []


def test_images_that_are_not_contiguous_in_memory() -> None:
    train = noise(300, 8)
    mirrored = with_images(train.images[:, :, ::-1])
    plain = with_images(np.ascontiguousarray(mirrored.images))
    assert also_in(mirrored, plain).tolist() == list(range(300))
    assert also_in(mirrored, train).tolist() == []


def test_a_part_of_a_data_set_has_the_hashes_of_its_images() -> None:
    whole = noise(40, 8)
    before = whole.take([5, 3, 39])
    hashes = whole.image_hashes
    after = whole.take([5, 3, 39])
    assert (
        before.image_hashes.tolist() == after.image_hashes.tolist() == hashes[[5, 3, 39]].tolist()
    )


def test_copies_with_another_label() -> None:
    images = noise(30, 8).images.copy()
    images[20] = images[4]  # labels 2 and 1
    images[12] = images[9]  # both have label 0
    images[29] = images[1]  # labels 2 and 1
    assert labelled_differently(with_images(images)).tolist() == [1, 29, 4, 20]
    assert labelled_differently(noise(30, 8)).tolist() == []


def test_a_few_of_the_copies_are_named() -> None:
    assert copies_named("test", range(1000, 3000), 12_000) == (
        "2,000 of 12,000 test images are also training images "
        "(numbers 1000, 1001, 1002, 1003, 1004, ..., counted from 0)"
    )
    assert (
        copies_named("validation", [3], 90) == "1 of 90 validation images is also a training image"
    )
