from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from peewit.data.cifar import layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.layouts import Layout
from peewit.data.cifar.verify import verify
from peewit.errors import PeewitError, UsageError

Files = Callable[..., dict[str, bytes]]
Write = Callable[[Path, dict[str, bytes], str], Path]
Form = Callable[..., Layout]


def test_every_file_is_compared(cifar10: Path, form: Form) -> None:
    checked = verify("cifar10", cifar10)
    assert checked.published is False
    assert [check.file for check in checked.files] == list(form("cifar10").files)
    assert {check.same for check in checked.files} == {False}
    assert checked.archive is not None
    assert checked.archive.found == hashlib.sha256(cifar10.read_bytes()).hexdigest()
    text = str(checked)
    assert f"{cifar10} is valid: 120 images of CIFAR-10" in text
    assert text.count("not as published") == 8
    assert "it is not the published CIFAR-10" in text


def test_the_published_files_in_another_archive_are_published(
    cifar10: Path, make_files: Files, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = {
        name: hashlib.md5(content).hexdigest()
        for name, content in make_files(form("cifar10")).items()
    }
    monkeypatch.setattr(layouts, "LAYOUTS", (replace(form("cifar10"), file_md5=sums),))
    checked = verify("cifar10", cifar10)
    assert checked.archive is not None
    assert checked.archive.same is False
    assert checked.published is True
    assert str(checked).endswith("it is the published CIFAR-10")


def test_no_checksums_are_published_for_binary_files(
    tmp_path: Path, make_files: Files, form: Form
) -> None:
    for name, content in make_files(form("cifar100", "binary")).items():
        (tmp_path / name).write_bytes(content)
    checked = verify("cifar100", tmp_path)
    assert checked.archive is None
    assert checked.published is None
    assert "nothing to compare with" in str(checked)


def test_a_binary_archive_is_compared_by_md5(
    tmp_path: Path, make_files: Files, make_archive: Write, form: Form
) -> None:
    path = make_archive(tmp_path / "b.tar.gz", make_files(form("cifar10", "binary")), "d")
    checked = verify("cifar10", path)
    assert checked.archive is not None
    assert checked.archive.found == hashlib.md5(path.read_bytes()).hexdigest()
    assert checked.published is False


def test_missing_wrong_and_damaged_data_is_an_error(cifar10: Path) -> None:
    with pytest.raises(PeewitError, match="peewit data fetch cifar10"):
        verify("cifar10")
    with pytest.raises(BadArchiveError, match="is not cifar100: it contains CIFAR-10"):
        verify("cifar100", cifar10)
    with pytest.raises(UsageError, match="no source"):
        verify("cifar11", cifar10)
    cifar10.write_bytes(cifar10.read_bytes()[:-9])
    with pytest.raises(BadArchiveError, match="truncated"):
        verify("cifar10", cifar10)


def test_the_usual_places_are_searched(cifar10: Path) -> None:
    Path("data").mkdir()
    cifar10.rename("data/cifar-10-python.tar.gz")
    assert verify("cifar10").path == Path("data/cifar-10-python.tar.gz")
