"""Pictures without a test part: a held-out test or a cross-validation, recorded by file name."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from made_data import brightness
from peewit import cross_validation, plots, report
from peewit.data.dataset import Dataset
from peewit.errors import Interrupted, PeewitError, UsageError
from peewit.evaluation.metrics import accuracy_interval
from peewit.report.evidence import Evidence
from peewit.report.sentences import cautions, headline
from peewit.runs import folder as runfolder
from peewit.runs.folds import FoldResults
from peewit.runs.run import Run
from peewit.runs.tested import find_tested
from peewit.trainer import train
from peewit.training import loop
from peewit.training.augment import Augment
from peewit.training.budget import planner
from peewit.training.budget.benchmark import Machine
from peewit.training.budget.plan import Ending, Measured, Speed
from peewit.training.budget.planner import Choice
from peewit.training.budget.schedules import Schedules
from peewit.training.callbacks import Callback, TrainInfo
from peewit.training.checkpoint import read_tensors
from peewit.training.recipe import Recipe
from peewit.training.state import TrainState

RECIPE = Recipe.preset("fast", model="fast-xs", epochs=1, threads=1, batch_size=8, tta=False)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, the plots and the machine's rate, which take three seconds a run."""
    monkeypatch.setattr(report, "after_training", lambda *_: None)
    for name in ("save_curves", "save_confusion", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda *_: None)
    monkeypatch.setattr(Machine, "measure_rate", lambda *_: 1e10)


def pictures(count: int, seed: int = 0, apart: int = 90) -> Dataset:
    """Return made pictures with names, as those of a folder."""
    data = brightness(count, 8, seed=seed, apart=apart)
    return replace(data, names=[f"{n}/{row}.png" for row, n in enumerate(data.labels.tolist())])


class Follow(Callback):
    """Collects notes and folds, and stops at the first step of a fold."""

    def __init__(self, stop_in: int = 0) -> None:
        self.notes: list[str] = []
        self.folds: list[int] = []
        self.steps = 0
        self._stop_in = stop_in

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_fold_begin(self, fold: int, folds: int, info: TrainInfo, state: TrainState) -> None:
        self.folds.append(fold)

    def on_step_end(self, state: TrainState) -> None:
        self.steps += 1

    def should_stop(self) -> bool:
        return self._stop_in in self.folds


def parts_of(run: Run) -> dict[str, str]:
    with (run.path / "split.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["part"] for row in csv.DictReader(file)}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return read_tensors(run.path / runfolder.WEIGHTS)[0]


def test_few_pictures_are_cross_validated(tmp_path: Path) -> None:
    data, follow = pictures(60), Follow()
    recipe = RECIPE.replace(folds=4, epochs=3)
    run = train(data, recipe, out=tmp_path / "run", progress=follow)
    assert follow.folds == [1, 2, 3, 4]
    metrics = run.metrics
    assert (metrics["split"], metrics["images"]) == ("cross-validation", 60)
    assert metrics["accuracy"] > 0.6
    assert np.mean(metrics["fold_accuracies"]) == pytest.approx(metrics["accuracy"], abs=0.01)
    assert metrics["temperature_scaling"]["images"] == 60
    assert run.dataset["images"] == {"training": 60, "validation": 0, "test": 0}
    parts = parts_of(run)
    assert set(parts) == set(data.names or ())
    assert set(parts.values()) == {"fold 1", "fold 2", "fold 3", "fold 4"}
    # the calibrated final network: its logits are the divided ones
    assert "in 4-fold cross-validation" in headline(run)
    assert any("was not trained on its fold" in text for text in cautions(run))
    # the steps of the folds are not those of the run
    assert follow.steps == 3 * run.recipe.steps(60)
    assert run.history[-1]["validation_accuracy"] > 0.6


def test_predictions_come_from_networks_that_did_not_see_the_picture(tmp_path: Path) -> None:
    # labels at random can be learned by heart, but not predicted
    data = pictures(40, apart=0)
    recipe = RECIPE.replace(epochs=12, folds=2, flip="none", translate=0, label_smoothing=0.0)
    run = train(data, recipe, out=tmp_path / "run", progress=Callback())
    own = (run.logits(data.images).argmax(1) == data.labels).mean()
    assert own > 0.8
    assert run.metrics["accuracy"] < 0.7


def test_the_default_depends_on_the_number_of_pictures(tmp_path: Path) -> None:
    few = train(pictures(60), RECIPE, out=tmp_path / "few", progress=Callback())
    assert (few.recipe.folds, few.metrics["split"]) == (5, "cross-validation")
    many = train(pictures(180), RECIPE, out=tmp_path / "many", progress=Callback())
    assert (many.recipe.folds, many.metrics["split"]) == (0, "test")
    assert many.dataset["images"]["test"] == 36
    counts = {part: list(parts_of(many).values()).count(part) for part in ("test", "validation")}
    assert counts["test"] == 36
    assert counts["validation"] == many.dataset["images"]["validation"]


def test_arrays_without_names_are_validated_as_before(tmp_path: Path) -> None:
    run = train(brightness(60, 8), RECIPE, out=tmp_path / "run", progress=Callback())
    assert run.metrics["split"] == "validation"
    assert not (run.path / "split.csv").exists()


def test_a_test_part_is_used_instead_of_folds(tmp_path: Path) -> None:
    data, test = pictures(60), pictures(20, seed=1)
    test = replace(test, names=[f"test/{name}" for name in test.names or ()])
    run = train(data, RECIPE, test=test, out=tmp_path / "run", progress=Callback())
    assert (run.metrics["split"], run.metrics["images"]) == ("test", 20)
    with pytest.raises(UsageError, match="test part"):
        train(data, RECIPE.replace(folds=3), test=test, out=tmp_path / "b", progress=Callback())


def test_an_interrupted_cross_validation_goes_on_where_it_was(tmp_path: Path) -> None:
    data, recipe = pictures(60), RECIPE.replace(folds=3)
    whole = train(data, recipe, out=tmp_path / "whole", progress=Callback())
    path = tmp_path / "run"
    with pytest.raises(Interrupted, match="everything is saved"):
        train(data, recipe, out=path, progress=Follow(stop_in=2))
    assert len(FoldResults.read(path, 60, 3).accuracies) == 1
    follow = Follow()
    run = train(data, resume=path, progress=follow)
    assert follow.folds == [2, 3]
    assert run.metrics["accuracy"] == whole.metrics["accuracy"]
    assert run.metrics["loss"] == whole.metrics["loss"]
    assert all(torch.equal(weights(run)[name], one) for name, one in weights(whole).items())


def test_resuming_says_which_pictures_are_missing_or_new(tmp_path: Path) -> None:
    data, recipe, path = pictures(60), RECIPE.replace(folds=3), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, recipe, out=path, progress=Follow(stop_in=2))
    with pytest.raises(PeewitError, match="1 picture of the run can no longer be read") as error:
        train(data.take(range(1, 60)), resume=path, progress=Callback())
    assert "0/0.png" in str(error.value)
    follow = Follow()
    # in another order, and with two more
    more = pictures(62)
    run = train(more.take(np.arange(62)[::-1]), resume=path, progress=follow)
    assert run.metrics["images"] == 60
    assert any("2 pictures" in note and "2/61" not in note for note in follow.notes)


def test_a_longer_run_repeats_its_folds(tmp_path: Path) -> None:
    data = pictures(60)
    run = train(data, RECIPE.replace(folds=2), out=tmp_path / "run", progress=Callback())
    follow = Follow()
    longer = RECIPE.replace(folds=2, epochs=2)
    run = train(data, longer, resume=run.path, progress=follow)
    assert follow.folds == [1, 2]
    assert run.metrics["split"] == "cross-validation"


def test_a_damaged_file_of_folds_is_refused(tmp_path: Path) -> None:
    data, path = pictures(60), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(data, RECIPE.replace(folds=3), out=path, progress=Follow(stop_in=2))
    file = path / runfolder.FOLDS
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(PeewitError, match=r"folds\.safetensors"):
        train(data, resume=path, progress=Callback())


def test_the_minutes_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # on a clock that advances by a second a step
    clock, batch, shares = SimpleNamespace(time=0.0), Augment.batch, []

    def now() -> float:
        return float(clock.time)

    def ticking(self: Augment, indices: Any, epoch: int) -> Any:
        clock.time += 1.0
        return batch(self, indices, epoch)

    def schedules(*args: Any) -> Schedules:
        made = Schedules(*args, now=now)
        shares.append(60 * made.recipe.minutes)  # type: ignore[operator]
        return made

    speed = Speed(model="fast-xs", batch_size=8, step=1.0, inference=0.0, flops=1e6)
    measured = Measured(speed=speed, ending=Ending(test=0.0, augmentation=0.0, rest=0.0))
    choice = Choice(recipe=RECIPE, speed=speed, seconds=60.0)
    fake = SimpleNamespace(perf_counter=now, monotonic=now)
    monkeypatch.setattr(Augment, "batch", ticking)
    monkeypatch.setattr(loop, "time", fake)
    monkeypatch.setattr(cross_validation, "time", fake)
    monkeypatch.setattr(
        "peewit.training.resolve.choose_network",
        lambda dataset, recipe, machine: replace(choice, recipe=recipe),
    )
    monkeypatch.setattr(Machine, "speed_of", lambda *_: speed)
    monkeypatch.setattr(planner, "measure", lambda *_, **__: measured)
    monkeypatch.setattr("peewit.trainer.Schedules", schedules)
    monkeypatch.setattr(cross_validation, "Schedules", schedules)
    recipe = RECIPE.replace(minutes=2.0, folds=3, translate=1)
    run = train(pictures(60), recipe, out=tmp_path / "run", progress=Callback(), began=0.0)
    assert run.recipe.minutes == 2.0
    # each network gets time for as many epochs as the others: 40 + 40 + 40 images, and 60
    assert shares[1:] == pytest.approx([120 * 40 / 180] * 3, rel=0.06)
    assert clock.time == pytest.approx(120, abs=1)
    assert run.history[-1]["images"] == pytest.approx(5 * 40, abs=15)
    found = FoldResults.read(run.path, 60, 3)
    assert found.spent == pytest.approx(80, abs=3)


def test_the_images_of_the_test_are_found_again(tmp_path: Path) -> None:
    data = pictures(180)
    run = train(data, RECIPE, out=tmp_path / "run", progress=Callback())
    found = find_tested(run, data, None)
    assert (found.judged.names, found.notes, found.logits) == (found.test.names, [], None)  # type: ignore[union-attr]
    accuracy = (run.logits(found.judged.images).argmax(1) == found.judged.labels).mean()
    assert accuracy == run.metrics["accuracy"]
    gone = (found.judged.names or ())[0]
    rows = [row for row, name in enumerate(data.names or ()) if name != gone]
    less = find_tested(run, data.take(rows), None)
    assert len(less.judged) == len(found.judged) - 1
    assert gone in less.notes[0]
    assert not less.complete
    more = find_tested(run, pictures(183), None)
    assert more.judged.names == found.judged.names
    assert "3 pictures" in more.notes[0]


def test_out_of_fold_predictions_are_found_again(tmp_path: Path) -> None:
    data = pictures(60, apart=20)
    run = train(data, RECIPE.replace(folds=3), out=tmp_path / "run", progress=Callback())
    found = find_tested(run, data.take(np.arange(60)[::-1]), None)
    assert found.logits is not None
    evidence = Evidence(training=found.training, judged=found.judged, logits=found.logits)
    right = evidence.predicted == found.judged.labels
    assert right.mean() == run.metrics["accuracy"]
    losses = -np.log(evidence.probabilities[np.arange(60), found.judged.labels])
    assert losses.mean() == pytest.approx(run.metrics["loss"], rel=1e-4)
    # each picture keeps its own prediction when others are gone
    less = find_tested(run, data.take(range(5, 60)), None)
    assert less.logits is not None
    by_name = dict(zip(found.judged.names or (), found.logits.tolist(), strict=True))
    assert [by_name[name] for name in less.judged.names or ()] == less.logits.tolist()


def test_groups_stay_whole_and_widen_the_interval(tmp_path: Path) -> None:
    data = replace(pictures(180, apart=3), groups=np.arange(180) // 9)
    run = train(data, RECIPE, out=tmp_path / "run", progress=Callback())
    parts = parts_of(run)
    part_of = [parts[name] for name in data.names or ()]
    for group in range(20):
        assert len({part_of[row] for row in range(9 * group, 9 * group + 9)}) == 1
    found = find_tested(run, data, None)
    correct = run.logits(found.judged.images).argmax(1) == found.judged.labels
    expected = accuracy_interval(correct, found.judged.groups)
    assert run.metrics["accuracy_interval"] == pytest.approx(expected)


def test_copies_never_stand_on_two_sides(tmp_path: Path) -> None:
    data = pictures(180)
    images = np.array(data.images)
    images[90:] = images[:90]  # the labels repeat every 3 rows, so they agree
    run = train(replace(data, images=images), RECIPE, out=tmp_path / "r", progress=Callback())
    parts = [parts_of(run)[name] for name in data.names or ()]
    assert parts[:90] == parts[90:]
    assert "also_in_training" not in run.metrics


def test_a_group_across_the_parts_of_a_source_is_named(tmp_path: Path) -> None:
    data = replace(pictures(60), groups=np.arange(60) // 3)
    test = replace(
        pictures(24, seed=1),
        names=[f"test/{row}.png" for row in range(24)],
        groups=np.r_[np.full(6, 2), np.arange(100, 118)],
    )
    follow = Follow()
    run = train(data, RECIPE, test=test, out=tmp_path / "run", progress=follow)
    found = run.metrics["also_in_training"]
    assert (found["images"], found["names"][0]) == (6, "test/0.png")
    low, high = found["interval_without"]
    assert low <= found["accuracy_without"] <= high
    assert any("test/0.png" in note and "group" in note for note in follow.notes)


def test_an_unreadable_table_of_parts_is_refused(tmp_path: Path) -> None:
    run = train(pictures(180), RECIPE, out=tmp_path / "run", progress=Callback())
    file = run.path / "split.csv"
    for text in ("name,part\na.png,somewhere\n", "x\n", "name,part\na,test\na,test\n", "\0"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(PeewitError, match=r"split\.csv"):
            runfolder.read_split(run.path)
    assert json.loads((run.path / "run.json").read_text(encoding="utf-8"))["finished"]
