"""``peewit data cache`` lists and removes decoded images."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from made_pictures import folder_of_pictures
from peewit.__main__ import main
from peewit.data import caches
from peewit.data.packing import at_size
from peewit.data.packing.entry import BUILDING
from peewit.data.sources import load
from peewit.transfer.cache import FeatureCache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 15 pictures, which are in the cache at 8 x 8 pixels."""
    folder = folder_of_pictures(tmp_path / "pictures", 5)
    at_size(load(str(folder)).train, 8, 8, "crop", print)
    return folder


def age(seconds: float) -> None:
    """Make all files of the cache older."""
    then = time.time() - seconds
    for path in caches.folder_of_pictures().rglob("*"):
        os.utime(path, (then, then))


def left() -> int:
    return len(caches.entries())


def test_list_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["source"] == str(folder)
    assert (entry["pictures"], entry["state"]) == (15, "complete")
    assert entry["bytes"] == sum(file.stat().st_size for file in Path(entry["path"]).iterdir())
    assert entry["bytes"] > 15 * 8 * 8 * 3


def test_list_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_size(load(str(folder)).train, 10, 12, "stretch", print)
    capsys.readouterr()
    assert main(["data", "cache", "list"]) == 0
    header, *rows, total = capsys.readouterr().out.splitlines()
    assert header.split()[-1] == "of"
    assert len(rows) == 2
    assert "10 x 12 pixels, stretch" in rows[0]
    assert all(row.endswith(str(folder)) for row in rows)
    assert total.endswith("in all")


def test_an_empty_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["data", "cache", "list"]) == 0
    assert main(["data", "cache", "clean", "--all"]) == 0
    assert "removed 0" in capsys.readouterr().out


def test_clean_keeps_what_is_of_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "clean"]) == 0
    assert left() == 1
    assert main(["data", "cache", "clean", "--older-than", "1"]) == 0
    assert left() == 1
    age(2 * 86_400)
    assert main(["data", "cache", "clean", "--older-than", "3"]) == 0
    assert left() == 1
    capsys.readouterr()
    assert main(["data", "cache", "clean", "--older-than", "1"]) == 0
    assert left() == 0
    assert "removed 1 cached data set," in capsys.readouterr().out


def test_clean_removes_what_is_damaged_unfinished_or_without_a_source(folder: Path) -> None:
    (entry,) = caches.entries()
    abandoned = entry.path.with_name(f"{BUILDING}abc")
    shutil.copytree(entry.path, abandoned)
    main(["data", "cache", "clean"])
    assert left() == 2  # another process may be building it
    age(2 * 3_600)
    main(["data", "cache", "clean"])
    assert [one.path for one in caches.entries()] == [entry.path]
    (entry.path / "about.json").write_text("{")
    main(["data", "cache", "clean"])
    assert left() == 0
    at_size(load(str(folder)).train, 8, 8, "crop", print)
    shutil.rmtree(folder)
    main(["data", "cache", "clean"])
    assert left() == 0


def test_clean_all_removes_cached_archives_as_well(folder: Path) -> None:
    entry = caches.folder_of_archives() / "0123-4567"
    entry.mkdir(parents=True)
    (entry / "images").write_bytes(bytes(1_000))
    assert left() == 2
    main(["data", "cache", "clean", "--all"])
    assert left() == 0
    assert not entry.exists()


def test_other_files_in_the_folder_stay(folder: Path) -> None:
    mine = caches.folder_of_pictures() / "mine.txt"
    mine.write_text("mine")
    (caches.folder_of_pictures() / "my folder").mkdir()
    main(["data", "cache", "clean", "--all"])
    assert mine.read_text() == "mine"
    assert (caches.folder_of_pictures() / "my folder").is_dir()


@pytest.mark.parametrize("days", ["-1", "nan", "many"])
def test_an_invalid_age_is_refused(
    folder: Path, days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "cache", "clean", "--older-than", days]) == 2
    assert "--older-than" in capsys.readouterr().err
    assert left() == 1


def test_both_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "clean", "--all", "--older-than", "3"]) == 2
    assert "--all and --older-than" in capsys.readouterr().err


def test_features_are_listed_and_removed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    cache = FeatureCache("network-224x224", 4)
    cache.add(np.array([1], np.uint64), np.ones((1, 4), np.float32))
    assert main(["data", "cache", "list"]) == 0
    assert "network-224x224" in capsys.readouterr().out
    assert main(["data", "cache", "clean"]) == 0
    assert cache.file.is_file()
    assert main(["data", "cache", "clean", "--all"]) == 0
    assert not cache.file.exists()
