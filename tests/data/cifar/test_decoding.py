from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.decoding import decode
from peewit.data.cifar.layouts import Layout

FORMS = [(layout.name, layout.form) for layout in layouts.LAYOUTS]
Files = Callable[..., dict[str, bytes]]
Write = Callable[[Path, dict[str, bytes], str], Path]


def reference(layout: Layout, files: dict[str, bytes]) -> np.ndarray:
    """Return the first image, decoded pixel by pixel."""
    first = next(iter(layout.batches))
    if layout.form == "binary":
        row = np.frombuffer(files[first], np.uint8)[len(layout.classes) :][:3072]
    else:
        row = pickle.loads(files[first], encoding="bytes")[b"data"][0]
    image = np.empty((32, 32, 3), np.uint8)
    for y in range(32):
        for x in range(32):
            for channel in range(3):
                image[y, x, channel] = row[channel * 1024 + y * 32 + x]
    return image


@pytest.mark.parametrize(("name", "kind"), FORMS)
@pytest.mark.parametrize("folder", [False, True])
def test_every_layout(
    name: str,
    kind: str,
    folder: bool,
    form: Callable[..., Layout],
    make_files: Files,
    make_archive: Write,
    tmp_path: Path,
) -> None:
    layout = form(name, kind)
    files = make_files(layout)
    if folder:
        path = tmp_path
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)
    else:
        path = make_archive(tmp_path / "a.tar.gz", files, layout.folder)
    decoded = decode(path)
    assert decoded.layout == layout
    assert decoded.images.shape == (layout.images, 32, 32, 3)
    assert decoded.images.dtype == np.uint8
    assert decoded.images.flags.c_contiguous
    np.testing.assert_array_equal(decoded.images[0], reference(layout, files))
    for column, (label, count) in zip(decoded.labels.T, layout.classes.items(), strict=True):
        np.testing.assert_array_equal(column[:20], np.arange(20) % count)
        assert len(decoded.class_names[label]) == count
    if name == "cifar10":
        assert decoded.class_names["fine"][3] == "cat"


def test_the_python_and_the_binary_layout_are_equal(
    form: Callable[..., Layout], make_files: Files, make_archive: Write, tmp_path: Path
) -> None:
    one, two = (
        decode(make_archive(tmp_path / kind, make_files(form("cifar100", kind)), "d"))
        for kind in ("python", "binary")
    )
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.class_names == two.class_names


def test_the_order_in_the_archive_does_not_matter(
    form: Callable[..., Layout], make_files: Files, make_archive: Write, tmp_path: Path
) -> None:
    files = make_files(form("cifar10"))
    straight = decode(make_archive(tmp_path / "a.tar.gz", files, "d"))
    reverse = decode(make_archive(tmp_path / "b.tar.gz", dict(reversed(files.items())), "d"))
    np.testing.assert_array_equal(straight.images, reverse.images)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(
    protocol: int,
    form: Callable[..., Layout],
    make_files: Files,
    make_archive: Write,
    tmp_path: Path,
) -> None:
    path = make_archive(tmp_path / "a.tar.gz", make_files(form("cifar10"), protocol), "d")
    assert decode(path).labels.max() == 9


def changed(pickled: bytes, **fields: Any) -> bytes:
    """Return a pickled batch with other values; None removes the key."""
    batch = pickle.loads(pickled, encoding="bytes")
    for key, value in fields.items():
        batch[key.encode()] = value
        if value is None:
            del batch[key.encode()]
    return pickle.dumps(batch, protocol=2)


PIXELS = np.zeros((20, 3072), np.uint8)
BAD = [
    ("data_batch_2", {"data": PIXELS[:19]}, r"shape \(19, 3072\) instead of \(20, 3072\)"),
    ("data_batch_2", {"data": PIXELS.reshape(20, 32, 32, 3)}, r"shape \(20, 32, 32, 3\)"),
    ("data_batch_2", {"data": PIXELS.astype(np.int8)}, "other than uint8"),
    ("data_batch_2", {"data": b"pixels"}, "contains no images"),
    ("data_batch_2", {"data": None}, "contains no images"),
    ("data_batch_3", {"labels": [0] * 19}, "19 labels for 20 images"),
    ("data_batch_3", {"labels": [0] * 19 + [10]}, "fine label 10, but labels go from 0 to 9"),
    ("data_batch_3", {"labels": [0] * 19 + [-1]}, "label -1"),
    ("data_batch_3", {"labels": [0] * 19 + [1 << 40]}, "label 1099511627776"),
    ("data_batch_3", {"labels": [0] * 19 + [b"cat"]}, "contains no labels"),
    ("data_batch_3", {"labels": None}, "contains no labels"),
    ("batches.meta", {"label_names": [b"cat"]}, "does not name 10 classes"),
    ("batches.meta", {"label_names": None}, "does not name 10 classes"),
    ("test_batch", {"extra": np.zeros(3)}, "other than uint8"),
]


@pytest.mark.parametrize(("file", "fields", "word"), BAD)
def test_the_bad_file_is_named(
    file: str,
    fields: dict[str, Any],
    word: str,
    form: Callable[..., Layout],
    make_files: Files,
    make_archive: Write,
    tmp_path: Path,
) -> None:
    files = make_files(form("cifar10"))
    files[file] = changed(files[file], **fields)
    path = make_archive(tmp_path / "a.tar.gz", files, "d")
    with pytest.raises(BadArchiveError, match=word) as caught:
        decode(path)
    assert f"{file} in {path}" in str(caught.value)


def test_a_hostile_batch_is_named_and_not_executed(
    form: Callable[..., Layout], make_files: Files, make_archive: Write, tmp_path: Path
) -> None:
    files = make_files(form("cifar10"))
    files["data_batch_4"] = b"cos\nmkdir\n(V" + str(tmp_path / "victim").encode() + b"\ntR."
    path = make_archive(tmp_path / "a.tar.gz", files, "d")
    with pytest.raises(BadArchiveError, match=r"data_batch_4 .* it imports os\.mkdir"):
        decode(path)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("change", [-1, 1, -3073])
def test_a_binary_batch_of_another_size_is_named(
    change: int,
    form: Callable[..., Layout],
    make_files: Files,
    make_archive: Write,
    tmp_path: Path,
) -> None:
    layout = form("cifar10", "binary")
    files = make_files(layout)
    files["test_batch.bin"] = (files["test_batch.bin"] + b"\0")[: 61_460 + change]
    path = make_archive(tmp_path / "a.tar.gz", files, "d")
    with pytest.raises(BadArchiveError, match=r"test_batch\.bin.* has .* bytes"):
        decode(path)


def test_a_binary_label_out_of_range_is_named(
    form: Callable[..., Layout], make_files: Files, make_archive: Write, tmp_path: Path
) -> None:
    files = make_files(form("cifar100", "binary"))
    files["test.bin"] = b"\x14" + files["test.bin"][1:]
    with pytest.raises(BadArchiveError, match=r"test\.bin .* coarse label 20"):
        decode(make_archive(tmp_path / "a.tar.gz", files, "d"))


@pytest.mark.parametrize(("name", "kind"), FORMS)
def test_missing_files_are_named(
    name: str,
    kind: str,
    form: Callable[..., Layout],
    make_files: Files,
    make_archive: Write,
    tmp_path: Path,
) -> None:
    layout = form(name, kind)
    for file in layout.files:
        files = make_files(layout)
        del files[file]
        with pytest.raises(BadArchiveError, match=f"incomplete: it lacks {file}"):
            decode(make_archive(tmp_path / "a.tar.gz", files, "d"))


def test_other_archives_and_folders_are_refused(
    form: Callable[..., Layout], make_files: Files, make_archive: Write, tmp_path: Path
) -> None:
    for path in (make_archive(tmp_path / "a.tar.gz", {"cat.png": b"x"}, "d"), tmp_path):
        with pytest.raises(BadArchiveError, match="does not contain CIFAR-10 or CIFAR-100"):
            decode(path)
    mixed = make_files(form("cifar10")) | make_files(form("cifar100"))
    with pytest.raises(BadArchiveError, match="belong to different data sets"):
        decode(make_archive(tmp_path / "a.tar.gz", mixed, "d"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "data_batch_1").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadArchiveError, match="data_batch_1 is refused: it has 1,099,511,627,776"):
        decode(tmp_path)


def test_the_real_archive(full_size: None, archive: Path) -> None:
    decoded = decode(archive)
    assert decoded.images.shape == (60_000, 32, 32, 3)
    assert np.bincount(decoded.labels[:50_000, 0]).tolist() == [5000] * 10
    assert np.bincount(decoded.labels[50_000:, 0]).tolist() == [1000] * 10
    assert " ".join(decoded.class_names["fine"]) == (
        "airplane automobile bird cat deer dog frog horse ship truck"
    )
    # in photographs neighbouring pixels are similar, but not if the planes were mixed up
    images = decoded.images[:500].astype(int)
    assert np.abs(np.diff(images, axis=1)).mean() < 20
    assert np.abs(np.diff(images, axis=2)).mean() < 20
