"""Run folders are created atomically, never overwrite anything, and are locked by one process."""

from __future__ import annotations

import os
from pathlib import Path

import filelock
import pytest

from peewit.errors import PeewitError, UsageError
from peewit.runs import folder as runfolder
from peewit.training.recipe import Recipe

RECIPE = Recipe(epochs=2, threads=1, seed=3)


def test_a_folder_is_created_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PeewitError, match="no space left on device"):
            runfolder.create(tmp_path / "run", {}, RECIPE)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()  # an empty folder may be used
    runfolder.create(tmp_path / "run", {}, RECIPE)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "recipe.yaml"}


def test_a_folder_that_cannot_be_created_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PeewitError, match=r"cannot write .*run"):
        runfolder.create(tmp_path / "file" / "run", {}, RECIPE)

    def read_only(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(PeewitError, match=r"run: permission denied"):
        runfolder.create(tmp_path / "run", {}, RECIPE)


def test_a_folder_that_another_process_has_filled_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def too_late(self: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    with pytest.raises(PeewitError, match="run is taken"):
        runfolder.create(tmp_path / "run", {}, RECIPE)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "theirs"]


def test_only_the_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".history.csv.x1.part", "history.csv", "mine.part", ".lock"):
        (tmp_path / name).touch()
    runfolder.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "history.csv", "mine.part"]


def test_a_lock_that_cannot_be_created_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: filelock.BaseFileLock) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    with (
        pytest.raises(PeewitError, match="read-only file system"),
        runfolder.locked(tmp_path),
    ):
        pytest.fail("it was locked")


def test_the_current_folder_cannot_become_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path("../" + tmp_path.name), tmp_path):
        with pytest.raises(UsageError, match="is the current folder; choose a folder inside it"):
            runfolder.check_free(path)
    runfolder.check_free(Path("new"))
