"""Sorting pictures into class folders: nothing is overwritten, lost or half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peewit.errors import PeewitError, UsageError
from peewit.prediction.sorting import Sorter, UnreadablePicture, folder_names


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


def test_copies_keep_the_original_and_its_time(tmp_path: Path) -> None:
    picture = write(tmp_path / "in/a.jpg", "A")
    os.utime(picture, (1000, 1000))
    target = Sorter(tmp_path / "out", ["cat", "dog"]).put(picture, "dog")
    assert target == tmp_path / "out/dog/a.jpg"
    assert contents(tmp_path) == {"in/a.jpg": "A", "out/dog/a.jpg": "A"}
    assert target.stat().st_mtime == 1000
    # changing the copy does not change the original
    target.write_text("B")
    assert picture.read_text() == "A"


@pytest.mark.parametrize("links", [True, False])
def test_a_move_removes_the_original(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on exFAT
        monkeypatch.setattr(os, "link", no_links)
    Sorter(tmp_path / "out", ["cat"], move=True).put(write(tmp_path / "in/a.jpg", "A"), "cat")
    assert contents(tmp_path) == {"out/cat/a.jpg": "A"}


def no_links(*arguments: object, **options: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("move", [True, False])
def test_a_taken_name_gets_a_number(
    move: bool, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "out/cat/a.jpg", "other")
    sorter = Sorter(tmp_path / "out", ["cat"], move)
    sorter.put(write(tmp_path / "x/a.jpg", "X"), "cat")
    sorter.put(write(tmp_path / "y/a.jpg", "Y"), "cat")
    assert contents(tmp_path / "out") == {
        "cat/a.jpg": "other",
        "cat/a-2.jpg": "X",
        "cat/a-3.jpg": "Y",
    }


def test_a_broken_link_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out/cat").mkdir(parents=True)
    (tmp_path / "out/cat/a.jpg").symlink_to("nowhere")
    target = Sorter(tmp_path / "out", ["cat"]).put(write(tmp_path / "a.jpg", "A"), "cat")
    assert target.name == "a-2.jpg"
    assert not (tmp_path / "out/cat/nowhere").exists()


def test_copying_again_changes_nothing(tmp_path: Path) -> None:
    picture = write(tmp_path / "a.jpg", "A")
    for _ in range(2):
        Sorter(tmp_path / "out", ["cat"]).put(picture, "cat")
    assert contents(tmp_path) == {"a.jpg": "A", "out/cat/a.jpg": "A"}


def test_moving_two_identical_pictures_keeps_both(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "out", ["cat"], move=True)
    for folder in "xy":
        sorter.put(write(tmp_path / folder / "a.jpg", "A"), "cat")
    assert contents(tmp_path) == {"out/cat/a.jpg": "A", "out/cat/a-2.jpg": "A"}


@pytest.mark.parametrize("move", [True, False])
def test_a_picture_that_is_in_its_place_stays(move: bool, tmp_path: Path) -> None:
    picture = write(tmp_path / "cat/a.jpg", "A")
    assert Sorter(tmp_path, ["cat"], move).put(picture, "cat") == picture
    assert contents(tmp_path) == {"cat/a.jpg": "A"}


def test_moving_a_link_moves_the_content_and_keeps_what_it_pointed_to(tmp_path: Path) -> None:
    original = write(tmp_path / "store/1.jpg", "A")
    link = tmp_path / "in.jpg"
    link.symlink_to(original)
    target = Sorter(tmp_path / "out", ["cat"], move=True).put(link, "cat")
    assert not target.is_symlink()
    assert contents(tmp_path) == {"store/1.jpg": "A", "out/cat/in.jpg": "A"}


def test_a_picture_that_has_gone_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for move in (True, False):
        with pytest.raises(UnreadablePicture, match=r"gone\.jpg: no such file"):
            Sorter(tmp_path / "out", ["cat"], move).put(tmp_path / "gone.jpg", "cat")
    assert contents(tmp_path) == {}


def test_a_failed_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    picture = write(tmp_path / "a.jpg", "A")
    with pytest.raises(PeewitError, match="no space left"):
        Sorter(tmp_path / "out", ["cat"]).put(picture, "cat")
    assert contents(tmp_path) == {"a.jpg": "A"}


def test_a_long_name_that_is_taken_gets_a_number_too(tmp_path: Path) -> None:
    name = "ü" * 125 + ".jpg"  # 254 bytes
    write(tmp_path / "out/cat" / name, "other")
    target = Sorter(tmp_path / "out", ["cat"]).put(write(tmp_path / name, "A"), "cat")
    assert target.read_text() == "A"
    assert target.suffix == ".jpg"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        Sorter(write(tmp_path / "out", ""), ["cat"])


@pytest.mark.parametrize(
    "name", ["..", ".", "", " ", "a/b", "/etc", "../../x", "a\\b", "nul", "COM1.x", "a\0b", ".x"]
)
def test_any_class_name_becomes_a_folder_of_its_own_inside(name: str, tmp_path: Path) -> None:
    (folder,) = folder_names([name])
    assert folder
    assert not folder.startswith(".")
    assert not set(folder) & set('/\\:*?"<>|\0')
    assert folder.split(".")[0].lower() not in ("nul", "com1")
    target = Sorter(tmp_path / "out", [name]).put(write(tmp_path / "a.jpg", "A"), name)
    assert target.parent.parent == tmp_path / "out"


def test_classes_never_share_a_folder() -> None:
    names = ["a/b", "a:b", "a_b", "A_B", "a_b-2", "ä", "a\u0308", "x" * 300, "x" * 301]
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all(len(os.fsencode(folder)) <= 255 for folder in folders)
    assert folder_names(["cat", "猫", "two words"]) == ["cat", "猫", "two words"]
