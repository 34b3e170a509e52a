from __future__ import annotations

import numpy as np
import pytest

from peewit.data.dataset import Dataset
from peewit.data.gallery import choose, describe, titles
from peewit.errors import UsageError


def test_the_seed_determines_the_draw(tiny: Dataset) -> None:
    first, again, other = (choose(tiny, count=10, seed=seed) for seed in (1, 1, 2))
    assert len(set(first.tolist())) == 10
    assert (first == again).all()
    assert (first != other).any()


def test_no_more_than_exist(tiny: Dataset) -> None:
    assert sorted(choose(tiny, count=1000)) == list(range(60))
    assert len(choose(tiny, classes=["dark"], count=1000)) == 20


def test_indices_keep_their_order(tiny: Dataset) -> None:
    assert choose(tiny, indices=[59, 0, 7]).tolist() == [59, 0, 7]
    assert titles(tiny, choose(tiny, indices=[59, 0, 7])) == ["bright", "dark", "middle"]


def test_classes_have_equal_shares_in_the_given_order(tiny: Dataset) -> None:
    chosen = choose(tiny, classes=["bright", "dark"], count=7)
    assert titles(tiny, chosen) == ["bright"] * 4 + ["dark"] * 3
    assert len(set(chosen.tolist())) == 7


def test_a_class_named_twice_counts_once(tiny: Dataset) -> None:
    assert len(set(choose(tiny, classes=["dark", "dark"], count=8).tolist())) == 8


def test_classes_filter_indices(tiny: Dataset) -> None:
    assert choose(tiny, indices=range(6), classes=["middle"]).tolist() == [1, 4]


@pytest.mark.parametrize("index", [60, -1])
def test_an_unknown_index(tiny: Dataset, index: int) -> None:
    with pytest.raises(UsageError, match=f"no image {index}: the 60 images .* from 0 to 59"):
        choose(tiny, indices=[0, index])


def test_an_unknown_class(tiny: Dataset) -> None:
    with pytest.raises(UsageError, match="no class 'dim': the classes are dark, middle, bright"):
        choose(tiny, classes=["dim"])


def test_a_negative_seed(tiny: Dataset) -> None:
    with pytest.raises(UsageError, match="seed is -1: it must be at least 0"):
        choose(tiny, seed=-1)


def test_nothing_to_show(tiny: Dataset) -> None:
    for count in (0, 10_001, 10**12):
        with pytest.raises(UsageError, match=f"cannot show {count:,} images; give 1 to 10,000"):
            choose(tiny, count=count)
    with pytest.raises(UsageError, match="there is no image to show"):
        choose(tiny, indices=[0], classes=["bright"])
    with pytest.raises(UsageError, match="there is no image to show"):
        choose(tiny.take(np.zeros(60, bool)))


def test_describe_has_counts_and_statistics(tiny: Dataset) -> None:
    text = describe(tiny)
    assert text.startswith("60 images of 32 x 32, RGB, in 3 classes\n")
    rows = [line.split() for line in text.splitlines()]
    for name in ("dark", "middle", "bright"):
        assert [name, "20"] in rows
    pixels = tiny.images / 255
    for number, name in enumerate(("red", "green", "blue")):
        channel = pixels[..., number]
        assert [name, f"{channel.mean():.3f}", f"{channel.std():.3f}"] in rows


def test_describe_grey(tiny_grey: Dataset) -> None:
    text = describe(tiny_grey)
    assert text.startswith("60 images of 8 x 8, grey")
    assert f"{np.mean(tiny_grey.images / 255):.3f}" in text
