"""peewit predict --csv and --sort-into: each picture is accounted for, nothing is overwritten."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import peewit.prediction.engines
from made_runs import make_run
from peewit.__main__ import main
from peewit.images.scaled import read_sized

NAMES = ("=night", "day/noon")


class Brightness:
    """Stand-in for an engine: bright pictures are of the second class."""

    class_names = NAMES
    stop_after = 10**9  # batches

    def read(self, content: Any, name: str) -> npt.NDArray[np.uint8]:
        return read_sized(content, name, height=2, width=2)

    def probabilities(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self.stop_after <= 0:
            raise KeyboardInterrupt
        self.stop_after -= 1
        day = images.mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - day, day], axis=1).astype(np.float32)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    one = Brightness()
    monkeypatch.setattr(peewit.prediction.engines, "fastest", lambda *arguments: one)
    return one


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Brightness) -> str:
    make_run(tmp_path / "run", class_names=NAMES)
    monkeypatch.chdir(tmp_path)
    return "run"


def paint(name: str, level: int) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), level).save(path)
    return name


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_picture_and_for_broken_ones_the_reason(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paint("in/a.png", 255)
    Path("in/b.png").write_text("<html>")
    paint("in/c.png", 0)
    assert main(["predict", run, "in", "--csv", "out.csv"]) == 1
    rows = table("out.csv")
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    # a spreadsheet would take =night for a formula
    assert [row["predicted"] for row in rows] == ["day/noon", "", "'=night"]
    assert rows[0]["confidence"] == "1.000000"
    assert rows[0]["error"] == rows[2]["error"] == ""
    assert "not a whole picture" in rows[1]["error"]
    output = capsys.readouterr()
    # how many of each class, instead of a line for each picture
    assert "a.png" not in output.out
    assert sorted(line.split()[-1] for line in output.out.splitlines()) == ["1", "1", "images"]
    assert "cannot read" in output.err


def test_csv_has_as_many_classes_as_asked_for(run: str) -> None:
    picture = paint("a.png", 51)
    common = ["predict", run, picture, "--csv", "out.csv"]
    assert main([*common, "--top", "2"]) == 0
    (row,) = table("out.csv")
    assert (row["class_2"], row["probability_2"]) == ("day/noon", "0.200000")
    assert main([*common, "--probabilities"]) == 0
    (row,) = table("out.csv")
    assert list(row) == ["image", "predicted", "confidence", "'=night", "day/noon", "error"]
    assert (row["'=night"], row["day/noon"]) == ("0.800000", "0.200000")


def test_json_and_csv_together(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = paint("a.png", 255)
    assert main(["predict", run, picture, "--csv", "o.csv", "--probabilities", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert [label["class"] for label in answer["labels"]] == ["day/noon"]
    assert len(table("o.csv")) == 1


@pytest.mark.parametrize("flag", ["--sort-into", "--move-to"])
def test_pictures_are_copied_into_class_folders(flag: str, run: str) -> None:
    paint("in/x/a.png", 255)
    paint("in/y/a.png", 200)
    paint("in/b.png", 0)
    assert main(["predict", run, "in", flag, "out"]) == 0
    found = sorted(file.relative_to("out").as_posix() for file in Path("out").rglob("*.png"))
    assert found == ["=night/b.png", "day_noon/a-2.png", "day_noon/a.png"]
    assert len(list(Path("in").rglob("*.png"))) == 3


def test_move_leaves_broken_pictures_where_they_are(run: str) -> None:
    paint("in/a.png", 255)
    Path("in/b.png").write_text("<html>")
    assert main(["predict", run, "in", "--sort-into", "out", "--move"]) == 1
    assert [file.name for file in Path("in").iterdir()] == ["b.png"]
    assert Path("out/day_noon/a.png").is_file()


def test_ctrl_c_keeps_the_rows_so_far(
    run: str, engine: Brightness, capsys: pytest.CaptureFixture[str]
) -> None:
    paint("in/a.png", 255)
    Path("in/b.png").write_text("<html>")  # ends the first batch
    paint("in/c.png", 255)
    engine.stop_after = 1
    assert main(["predict", run, "in", "--csv", "o.csv", "--sort-into", "out", "--move"]) == 130
    assert [Path(row["image"]).name for row in table("o.csv")] == ["a.png", "b.png"]
    assert sorted(file.name for file in Path("in").iterdir()) == ["b.png", "c.png"]
    assert "2 of 3 images" in capsys.readouterr().err
    assert not list(Path().glob(".*.part"))


@pytest.mark.parametrize("options", [["--move"], ["--probabilities"], ["-", "--sort-into", "out"]])
def test_options_without_their_partner_are_refused(options: list[str], run: str) -> None:
    assert main(["predict", run, paint("a.png", 0), *options]) == 2
    assert not Path("out").exists()


def test_a_csv_that_cannot_be_written_is_one_sentence(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", run, paint("a.png", 0), "--csv", "no/such/out.csv"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_rejected_pictures_are_of_none_of_the_classes(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "careful", class_names=NAMES, reject_below=0.9)
    sure, unsure = paint("in/sure.png", 255), paint("in/unsure.png", 140)
    arguments = ["predict", "careful", "in", "--reject"]
    assert main([*arguments, "--csv", "out.csv", "--sort-into", "sorted"]) == 0
    assert Path("sorted/none-of-these/unsure.png").is_file()
    assert Path("sorted/day_noon/sure.png").is_file()
    rows = table("out.csv")
    assert [row["predicted"] for row in rows] == ["day/noon", "none of these classes"]
    assert [row["rejected_class"] for row in rows] == ["", "day/noon"]
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert {answer["image"]: answer["rejected"] for answer in answers} == {
        sure: False,
        unsure: True,
    }
    assert main(["predict", "careful", unsure, "--reject"]) == 0
    assert "none of these classes (day/noon" in capsys.readouterr().out
    # only on request
    assert main(["predict", "careful", unsure, "--json"]) == 0
    assert "rejected" not in json.loads(capsys.readouterr().out)[0]


def test_a_run_without_a_threshold_cannot_reject(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", run, paint("a.png", 255), "--reject", "--sort-into", "sorted"]) == 1
    assert "cannot reject" in capsys.readouterr().err
    assert not Path("sorted").exists()


def test_a_class_named_like_the_folder_of_rejected_pictures_keeps_its_folder(
    run: str, tmp_path: Path
) -> None:
    from peewit.prediction.sorting import Sorter

    sorter = Sorter(tmp_path / "sorted", ["none-of-these", "cat"])
    picture = Path(paint("a.png", 7))
    assert sorter.put(picture, "none-of-these").parent != sorter.put(picture, None).parent
