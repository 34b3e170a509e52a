from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peewit.data import SourceNotAvailable, load
from peewit.data.cifar import cache, layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.layouts import CIFAR10_CLASSES, Layout
from peewit.data.download import fetch as download
from peewit.data.sources import fetch
from peewit.errors import PeewitError, UsageError

Files = Callable[..., dict[str, bytes]]
Write = Callable[[Path, dict[str, bytes], str], Path]
Form = Callable[..., Layout]


@pytest.fixture
def cifar100(tmp_path: Path, make_files: Files, make_archive: Write, form: Form) -> Path:
    return make_archive(tmp_path / "hundred.tar.gz", make_files(form("cifar100")), "d")


def test_a_name_with_a_path_is_equal_to_the_path(cifar10: Path) -> None:
    one, two = load("cifar10", data=cifar10), load(str(cifar10))
    for splits in (one, two):
        assert splits.test is not None
        assert len(splits.train) == 100
        assert len(splits.test) == 20
        assert splits.train.image_shape == (32, 32, 3)
        assert splits.train.labels.dtype == np.int64
        assert splits.train.class_names[3] == "cat"
        assert splits.train.origin == f"cifar10 train, {cifar10}"
        assert splits.test.origin == f"cifar10 test, {cifar10}"
    assert one.train.fingerprint == two.train.fingerprint
    assert one.notes == two.notes


def test_an_archive_with_another_checksum_is_accepted_with_a_note(cifar10: Path) -> None:
    for _ in ("decoded", "from the cache"):
        (note,) = load("cifar10", data=cifar10).notes
        assert str(cifar10) in note
        assert "not the published one" in note


def test_the_published_archive_has_no_note(
    cifar10: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(form("cifar10"), sha256=hashlib.sha256(cifar10.read_bytes()).hexdigest())
    monkeypatch.setattr(layouts, "LAYOUTS", (known,))
    assert load("cifar10", data=cifar10).notes == ()


def test_an_extracted_folder_with_the_published_files_has_no_note(
    tmp_path: Path, make_files: Files, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_files(form("cifar10"))
    folder = tmp_path / "extracted"
    folder.mkdir()
    sums = {}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    assert len(load(str(folder)).notes) == 1
    monkeypatch.setattr(layouts, "LAYOUTS", (replace(form("cifar10"), file_md5=sums),))
    os.utime(folder / "test_batch")  # the cache has stored the old verdict
    assert load(str(folder)).notes == ()


def test_a_binary_folder_has_no_published_checksums(
    tmp_path: Path, make_files: Files, form: Form
) -> None:
    for name, content in make_files(form("cifar10", "binary")).items():
        (tmp_path / name).write_bytes(content)
    assert load(str(tmp_path)).notes == ()


def test_cifar100_has_fine_and_coarse_labels(cifar100: Path) -> None:
    fine = load("cifar100", data=cifar100).train
    coarse = load("cifar100", data=cifar100, coarse=True).train
    assert len(fine.class_names) == 100
    assert fine.class_names[1] == "kind 1"
    assert len(coarse.class_names) == 20
    assert coarse.class_names[1] == "group 1"
    np.testing.assert_array_equal(fine.images, coarse.images)
    assert load(str(cifar100), coarse=True).train.class_names == coarse.class_names


def test_digits_are_deterministic() -> None:
    train, test, notes = load("digits")
    assert test is not None
    assert len(train) + len(test) == 1797
    assert train.image_shape == test.image_shape == (8, 8, 1)
    assert train.images.max() == 255
    assert notes == ()
    assert load("digits").train.fingerprint == train.fingerprint


@pytest.mark.parametrize("source", ["cifar11", "CIFAR-10", "mnist", ""])
def test_an_unknown_source_lists_the_known_ones(source: str) -> None:
    with pytest.raises(UsageError, match="known are cifar10, cifar100 and digits") as caught:
        load(source)
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="known are"):
        load(source, data="somewhere")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    for call in (
        lambda: load(str(tmp_path / "no.tar.gz")),
        lambda: load("cifar10", data=tmp_path / "no.tar.gz"),
        lambda: load("cifar10", data="no"),
    ):
        with pytest.raises(PeewitError, match=r"cannot find .*no.*check the path") as caught:
            call()
        assert caught.value.exit_code == 1


def test_unusual_paths_are_an_error(tmp_path: Path) -> None:
    for path in ("x" * 5000 + "/y", "a\0b/c", str(tmp_path / "a" / ".." / "b")):
        with pytest.raises(PeewitError, match="cannot find"):
            load(path)
    with pytest.raises(BadArchiveError, match="not a regular file"):
        load(os.devnull)


def test_the_wrong_data_for_a_name(cifar10: Path, cifar100: Path) -> None:
    with pytest.raises(
        BadArchiveError, match=r"is not cifar10: it contains CIFAR-100; use cifar100"
    ):
        load("cifar10", data=cifar100)
    with pytest.raises(UsageError, match="cifar10 has no coarse labels"):
        load("cifar10", data=cifar10, coarse=True)
    with pytest.raises(UsageError, match="has no coarse labels"):
        load(str(cifar10), coarse=True)
    for options in ({"data": cifar10}, {"coarse": True}):
        with pytest.raises(UsageError, match="digits has neither"):
            load("digits", **options)  # type: ignore[arg-type]


def test_a_damaged_file_at_a_path_is_an_error_even_if_the_data_is_elsewhere(
    cifar10: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cifar-10-python.tar.gz").write_bytes(cifar10.read_bytes())
    assert len(load("cifar10").train) == 100
    cifar10.write_bytes(cifar10.read_bytes()[:1000])
    with pytest.raises(BadArchiveError, match="truncated"):
        load("cifar10", data=cifar10)


def test_damaged_files_in_the_usual_places_are_skipped_with_a_note(
    cifar10: Path, tmp_path: Path
) -> None:
    whole = cifar10.read_bytes()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "cifar-10-python.tar.gz").write_bytes(whole[:2000])
    keras = tmp_path / "keras" / "datasets"
    keras.mkdir(parents=True)
    (keras / "cifar-10-batches-py.tar.gz").write_bytes(b"<html>outage</html>")
    (keras / "cifar-10-batches-py").mkdir()
    (keras / "cifar-10-batches-py" / "readme.html").touch()  # an empty folder would not count
    Path("data").mkdir()
    Path("data/cifar-10-python.tar.gz").write_bytes(whole)
    splits = load("cifar10")
    assert splits.train.origin == f"cifar10 train, {Path('data/cifar-10-python.tar.gz')}"
    notes = "\n".join(splits.notes)
    assert "home" in splits.notes[0]
    assert "truncated" in splits.notes[0]
    assert "is a web page" in notes
    assert "cifar-10-batches-py does not contain" in notes
    assert len(splits.notes) == 4
    fetched = fetch("cifar10")
    assert fetched.path == Path("data/cifar-10-python.tar.gz")
    assert fetched.downloaded is False


def test_a_source_that_is_not_found_and_cannot_be_downloaded(tmp_path: Path) -> None:
    for call in (load, fetch):
        with pytest.raises(SourceNotAvailable, match="cannot download CIFAR-10") as caught:
            call("cifar10")
        assert caught.value.exit_code == 1
        assert str(tmp_path / "home") in str(caught.value)
    Path("data").mkdir()
    Path("data/cifar-10-python.tar.gz").touch()
    with pytest.raises(SourceNotAvailable, match=r"it is empty, 127\.0\.0\.1:9: "):
        load("cifar10")


def test_a_source_that_is_not_found_is_downloaded(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    def pretend(name: str, folder: Path, **_: object) -> download.Fetched:
        folder.mkdir()
        target = folder / "cifar-10-python.tar.gz"
        target.write_bytes(cifar10.read_bytes())
        return download.Fetched(target, True, ("example.org: it is slow",))

    monkeypatch.setattr(download, "fetch_archive", pretend)
    splits = load("cifar10")
    assert splits.notes[0] == "example.org: it is slow"
    assert splits.train.origin.endswith(str(home / "cifar-10-python.tar.gz"))


def test_images_are_memory_mapped_from_the_cache(cifar10: Path, tmp_path: Path) -> None:
    train = load("cifar10", data=cifar10).train
    assert len(list((tmp_path / "home" / "decoded").iterdir())) == 1
    base = train.images
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_importing_it_imports_no_large_package() -> None:
    code = (
        "import sys, peewit.data; "
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'PIL', 'urllib.request', 'filelock')"
        " if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_real_archive(full_size: None, archive: Path) -> None:
    splits = load("cifar10", data=archive)
    assert splits.test is not None
    assert len(splits.train) == 50_000
    assert len(splits.test) == 10_000
    assert splits.train.images.dtype == np.uint8
    assert tuple(splits.train.class_names) == CIFAR10_CLASSES
    mean, deviation = splits.train.channel_statistics
    # well-known values of the original; the test archive was stored as JPEG, hence the tolerance
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=0.01)
    np.testing.assert_allclose(deviation, [0.2470, 0.2435, 0.2616], atol=0.01)
    assert cache.load(archive, Path(os.environ["PEEWIT_HOME"]) / "decoded").notes == ()
