from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peewit.data.cifar.layouts import Layout
from peewit.data.places import home, resolve, where
from peewit.errors import UsageError

Files = Callable[..., dict[str, bytes]]
Form = Callable[..., Layout]


def test_the_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = where("cifar10")
    assert list(dict.fromkeys(place.owner for place in places)) == [
        "PEEWIT_HOME",
        "Keras",
        "torchvision",
    ]
    assert places[0] == ("PEEWIT_HOME", tmp_path / "home" / "cifar-10-python.tar.gz", False)
    monkeypatch.delenv("PEEWIT_HOME")
    owners = [place.owner for place in where("cifar10")]
    assert list(dict.fromkeys(owners)) == ["Keras", "torchvision", "Peewit"]
    assert where("cifar10", "x.tar.gz") == [("--data", Path("x.tar.gz"), False)]


@pytest.mark.parametrize(
    ("owner", "path"),
    [
        ("PEEWIT_HOME", "home/cifar-10-binary.tar.gz"),
        ("Keras", "keras/datasets/cifar-10-batches-py.tar.gz"),
        ("Keras", "keras/datasets/cifar-10-batches-py-target.tar.gz"),
        ("Keras", "keras/datasets/cifar-10-batches-py_archive"),
        ("Keras", "keras/datasets/cifar-10-batches-py"),
        ("torchvision", "data/cifar-10-python.tar.gz"),
        ("torchvision", "data/cifar-10-batches-py"),
    ],
)
def test_the_usual_places_of_other_programs(
    owner: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    (found,) = [place for place in where("cifar10") if place.found]
    assert found.owner == owner
    assert found.path.resolve() == (tmp_path / path).resolve()


def test_the_default_folder_of_keras(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_HOME")
    folder = isolated / ".keras" / "datasets"
    folder.mkdir(parents=True)
    (folder / "cifar-10-batches-py.tar.gz").touch()
    assert [place.path for place in where("cifar10") if place.found] == [
        folder / "cifar-10-batches-py.tar.gz"
    ]


def test_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    folder = tmp_path / "keras" / "datasets" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    assert not any(place.found for place in where("cifar10"))
    (folder / "anything").touch()
    assert [place.path for place in where("cifar10") if place.found] == [folder]


@pytest.mark.parametrize("outer", ["cifar-10-batches-py", "cifar-10-batches-py-target"])
def test_newer_keras_nests_the_folder(
    outer: str, tmp_path: Path, make_files: Files, form: Form
) -> None:
    inner = tmp_path / "keras" / "datasets" / outer / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    for name, content in make_files(form("cifar10")).items():
        (inner / name).write_bytes(content)
    assert [place.path for place in where("cifar10") if place.found] == [inner]


@pytest.mark.parametrize(
    "inner", ["", "cifar-10-python.tar.gz", "cifar-10-batches-bin", "cifar-10-batches-py.tar.gz"]
)
def test_a_folder_that_contains_the_data_is_accepted(inner: str, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    if inner.endswith(".gz"):
        downloads.mkdir()
        (downloads / inner).touch()
    else:
        (downloads / inner).mkdir(parents=True)
        (downloads / inner / "data_batch_1.bin").touch()
    assert resolve(downloads, "cifar10") == downloads / inner
    assert resolve(downloads, None) == downloads / inner


def test_the_name_selects_in_a_folder_with_both(tmp_path: Path) -> None:
    for name in ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz"):
        (tmp_path / name).touch()
    assert resolve(tmp_path, "cifar100").name == "cifar-100-python.tar.gz"
    assert resolve(tmp_path, None).name == "cifar-10-python.tar.gz"


def test_only_sources_with_files_have_places() -> None:
    with pytest.raises(UsageError, match="scikit-learn"):
        where("digits")
    with pytest.raises(UsageError, match="there is no source cifar11"):
        where("cifar11")


def test_home(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEEWIT_HOME", "~/pictures")
    assert home() == isolated / "pictures"
    monkeypatch.setenv("PEEWIT_HOME", "")
    assert home().name in ("peewit", "Cache")
    assert isolated in home().parents
