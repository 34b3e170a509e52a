"""An audit finds what was put into a data set, and nothing in clean data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from peewit.data import listing_of
from peewit.data.audit import Audit, check


def scene(number: int, side: int = 96) -> Image.Image:
    """Return a picture of random shapes: the same for the same number."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
    fine = random.integers(0, 60, (side, side, 3), np.uint8)
    large = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    pixels: npt.NDArray[np.uint8] = (large // 2 + fine).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two classes of six different pictures each, in two parts."""
    for number in range(12):
        part, name = ("train", "test")[number % 3 == 2], ("cat", "dog")[number % 2]
        folder = tmp_path / "pets" / part / name
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.png")
    return tmp_path / "pets"


def audited(folder: Path, **options: object) -> Audit:
    listing = listing_of(folder)
    assert listing is not None
    return check(listing, **options)  # type: ignore[arg-type]


def found(audit: Audit, kind: str) -> list[str]:
    return [str(audit.listing.names[finding.row]) for finding in audit.of(kind)]


def test_clean_data_has_no_findings(clean: Path) -> None:
    audit = audited(clean)
    assert audit.counts == {}
    assert audit.formats == {"PNG": 12}
    assert audit.class_counts() == {"cat": {"train": 4, "test": 2}, "dog": {"train": 4, "test": 2}}
    assert audit.imbalance == 1


def test_unreadable_and_misnamed_files(clean: Path) -> None:
    (clean / "train/cat/broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    scene(90).save(clean / "train/cat/wrong.jpg", "GIF")
    audit = audited(clean)
    assert audit.counts == {"unreadable": 1, "misnamed": 1}
    assert [finding.action for finding in audit.findings] == ["remove", "rename wrong.gif"]


def test_a_copy_in_the_test_part(clean: Path) -> None:
    scene(0).save(clean / "test/cat/copy.png")
    audit = audited(clean)
    assert audit.counts == {"identical in two parts": 2}
    assert found(audit, "identical in two parts") == ["test/cat/copy.png", "train/cat/0.png"]
    assert [finding.action for finding in audit.findings] == ["keep", "remove"]


def test_a_copy_under_another_label_in_another_part_is_both(clean: Path) -> None:
    scene(0).save(clean / "test/dog/copy.png")
    audit = audited(clean)
    assert audit.counts == {"identical in two parts": 2, "identical with two labels": 2}


def test_of_copies_in_a_class_one_is_kept(clean: Path) -> None:
    scene(0).save(clean / "train/cat/0-copy.png")
    audit = audited(clean)
    assert audit.counts == {"identical": 2}
    assert sorted(finding.action for finding in audit.findings) == ["keep", "remove"]


def test_a_near_duplicate_is_not_removed_without_asking(clean: Path) -> None:
    scene(0).resize((70, 70)).save(clean / "test/dog/small.jpg", quality=80)
    audit = audited(clean)
    assert audit.counts == {"similar in two parts": 2, "similar with two labels": 2}
    assert {finding.action for finding in audit.findings} == {"keep"}


def test_tiny_dark_constant_and_blurred(clean: Path) -> None:
    scene(91).resize((20, 40)).save(clean / "train/cat/tiny.png")
    dark = np.random.default_rng(0).integers(0, 18, (64, 64, 3), np.uint8)
    Image.fromarray(dark).save(clean / "train/cat/dark.png")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(clean / "train/cat/red.png")
    scene(93).filter(ImageFilter.GaussianBlur(12)).save(clean / "train/cat/soft.png")
    audit = audited(clean)
    for kind, name in (
        ("tiny", "tiny"),
        ("dark", "dark"),
        ("constant", "red"),
        ("blurred", "soft"),
    ):
        assert found(audit, kind) == [f"train/cat/{name}.png"], kind


def test_a_sure_prediction_of_another_class_makes_a_label_suspicious(clean: Path) -> None:
    predictions = {
        "test/cat/2.png": ("dog", 0.9),  # as sure as correct predictions of dogs are on average
        "test/cat/8.png": ("dog", 0.7),
        "test/dog/5.png": ("dog", 0.8),
        "test/dog/11.png": ("dog", 0.9),
        "gone.png": ("cat", 1.0),
    }
    audit = audited(clean, predictions=predictions)
    assert found(audit, "suspicious label") == ["test/cat/2.png"]


def test_imbalance(clean: Path) -> None:
    for number in range(50, 62):
        scene(number).save(clean / f"train/dog/{number}.png")
    assert audited(clean).imbalance == 3


def test_an_icon_among_photographs(clean: Path) -> None:
    for number in range(100, 160):
        scene(number).save(clean / "train" / "cat" / f"{number}.png")
    icon = Image.new("RGB", (96, 96), "white")
    icon.paste((200, 30, 30), (20, 20, 60, 60))
    icon.save(clean / "train" / "dog" / "icon.png")
    Image.new("RGB", (96, 96)).save(clean / "train" / "dog" / "black.png")
    audit = audited(clean)
    assert "train/dog/icon.png" in found(audit, "outlier")
    # named once, by the graver finding
    assert found(audit, "constant") == ["train/dog/black.png"]
    assert "train/dog/black.png" not in found(audit, "outlier")
