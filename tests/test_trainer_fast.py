"""``peewit.train`` with fast recipes: exact resuming, calibration and time budgets."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from made_data import brightness
from peewit import plots, report
from peewit.__main__ import main
from peewit.data.dataset import Dataset
from peewit.errors import Interrupted, UsageError
from peewit.evaluation.inference import logits_in_batches
from peewit.evaluation.metrics import evaluate
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training import loop
from peewit.training.augment import Augment
from peewit.training.budget import planner, schedules
from peewit.training.budget.plan import Ending, Measured, Speed
from peewit.training.budget.planner import Choice
from peewit.training.budget.schedules import Schedules
from peewit.training.callbacks import Callback
from peewit.training.checkpoint import read_state, read_tensors
from peewit.training.recipe import Recipe
from watching import At

# 37 training images and 3 held out, in batches of 3: 12 steps per epoch, one image left over
RECIPE = Recipe.preset(
    "fast",
    model="fast-xs",
    epochs=3,
    batch_size=3,
    translate=1,
    cutout=3,
    skip_easy=0.5,
    threads=1,
    validation_fraction=0.1,
    checkpoint_minutes=0,
)
STEPS = 12
TICK = 10.0  # seconds that a step takes on the clock of these tests


# images that take a while to learn
made = partial(brightness, size=8, apart=20, noise=200)
DATA, TEST = made(40), made(30, seed=1)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots, and do not measure the best rate of the machine."""
    for name in ("save_curves", "save_confusion", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda path, *rest: path.touch())
    monkeypatch.setattr(report, "after_training", lambda run, evidence, note: None)
    monkeypatch.setattr("peewit.training.budget.benchmark.best_rate", lambda *_: 1e11)


def trained(data: Dataset, recipe: Recipe, path: Path) -> Run:
    """Train without plots, for a fixture with module scope."""
    with pytest.MonkeyPatch.context() as patch:
        without_pictures.__wrapped__(patch)  # type: ignore[attr-defined]
        return train(data, recipe, test=TEST, out=path, progress=Callback())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return trained(DATA, RECIPE, tmp_path_factory.mktemp("whole") / "run")


class KilledError(Exception):
    """Simulates the end of the process."""


def kill() -> None:
    raise KilledError


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def assert_same(one: Run, other: Run) -> None:
    """Assert that weights, statistics and optimiser state are bit-identical."""
    for file in (runfolder.WEIGHTS, runfolder.CHECKPOINT):
        ours, theirs = (read_tensors(run.path / file)[0] for run in (one, other))
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name
    for name in ("loss", "accuracy", "validation_loss", "images", "flops"):
        assert [row[name] for row in one.history] == [row[name] for row in other.history]
    assert one.metrics["confusion"] == other.metrics["confusion"]


# before the whitening layer is frozen (step 13.5 of 36), after it, at an epoch's end, in the last
PLACES = [(0, 5), (1, 2), (1, STEPS), (2, 1), (2, STEPS)]


@pytest.mark.parametrize(("epoch", "step"), PLACES)
def test_resume_after_kill_is_bit_identical(
    whole: Run, tmp_path: Path, epoch: int, step: int
) -> None:
    with pytest.raises(KilledError):
        train(DATA, RECIPE, test=TEST, out=tmp_path / "run", progress=At(epoch, step, kill))
    torch.rand(3)  # the caller's random numbers must not matter
    assert_same(train(DATA, test=TEST, resume=tmp_path / "run", progress=Callback()), whole)


def test_two_interruptions_are_bit_identical(whole: Run, tmp_path: Path) -> None:
    path, rare = tmp_path / "run", RECIPE.replace(checkpoint_minutes=60)
    with pytest.raises(Interrupted):
        train(DATA, rare, test=TEST, out=path, progress=At(0, 7, interrupt))
    with pytest.raises(Interrupted):
        train(DATA, test=TEST, resume=path, progress=At(2, 3, interrupt))
    assert_same(train(DATA, test=TEST, resume=path, progress=Callback()), whole)


def test_history_counts_operations_and_images(whole: Run) -> None:
    assert [row["epoch"] for row in whole.history] == [1, 2, 3]
    assert [row["images"] for row in whole.history] == [36, 72, 108]
    flops = [row["flops"] for row in whole.history]
    assert flops[1] - flops[0] > flops[2] - flops[1] > 0  # the whitening has come to rest
    assert whole.metrics["flops"] == flops[-1]
    assert whole.metrics["share_of_best"] > 0


def test_prediction_does_not_depend_on_the_batch(whole: Run) -> None:
    assert whole.unsure_below > 0
    together = whole.logits(TEST.images)
    alone = np.concatenate([whole.logits(image[None]) for image in TEST.images])
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-4)
    reopened = Run.open(whole.path)
    assert np.array_equal(reopened.logits(TEST.images), together)
    accuracy = (together.argmax(1) == TEST.labels).mean()
    assert whole.metrics["accuracy"] == pytest.approx(accuracy)
    assert "single_view_accuracy" in whole.metrics


# 60 training images and 60 held out, 10 steps per epoch
MANY = made(120)
CALIBRATED = RECIPE.replace(
    batch_norm_statistics="moving",  # calibration is to be the only change of the weights
    batch_size=6,
    validation_fraction=0.5,
    epochs=2,
    schedule="constant",
    skip_easy=0.0,
    calibrate=True,
)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted, calibrated run."""
    return trained(MANY, CALIBRATED, tmp_path_factory.mktemp("calibrated") / "run")


def tensors(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the final weights, and those of the checkpoint."""
    kept = read_tensors(run.path / runfolder.CHECKPOINT)[0]
    weights = {name[6:]: value for name, value in kept.items() if name.startswith("model/")}
    return read_tensors(run.path / runfolder.WEIGHTS)[0], weights


def test_calibration_changes_only_the_confidence(calibrated: Run, tmp_path: Path) -> None:
    found = calibrated.metrics["temperature_scaling"]
    assert found["images"] == 60
    assert found["temperature"] < 1  # label smoothing leaves it less sure than it is right
    weights, trained = tensors(calibrated)
    expected = trained.pop("head.weight").double() / found["temperature"]
    assert torch.equal(weights.pop("head.weight"), expected.float())
    assert all(torch.equal(weights[name], trained[name]) for name in trained)

    plain_recipe = CALIBRATED.replace(calibrate=False)
    plain = train(MANY, plain_recipe, test=TEST, out=tmp_path / "run", progress=Callback())
    assert "temperature_scaling" not in plain.metrics
    assert all(torch.equal(*pair) for pair in zip(*map(dict.values, tensors(plain)), strict=True))
    assert plain.metrics["single_view_accuracy"] == calibrated.metrics["single_view_accuracy"]
    _, held_out = MANY.split(0.5, CALIBRATED.seed)
    for run, error in ((plain, "error_before"), (calibrated, "error_after")):
        model, rule = run.model(), run.preprocessing
        logits = np.concatenate(list(logits_in_batches(model, rule.tensor, held_out.images)))
        judged = evaluate(logits, held_out.labels, MANY.class_names)
        assert judged.calibration_error == pytest.approx(found[error], abs=1e-6)
    whole = evaluate(calibrated.logits(TEST.images), TEST.labels, TEST.class_names)
    assert whole.calibration_error == pytest.approx(calibrated.metrics["calibration_error"])
    assert found["error_after"] < found["error_before"]


def test_calibrated_run_is_resumed_from_uncalibrated_weights(
    calibrated: Run, tmp_path: Path
) -> None:
    path, first = tmp_path / "run", CALIBRATED.replace(epochs=1)
    run = train(MANY, first, test=TEST, out=path, progress=Callback())
    assert run.metrics["temperature_scaling"]
    assert_same(train(MANY, CALIBRATED, test=TEST, resume=path, progress=Callback()), calibrated)


def test_interrupted_final_test_is_not_calibrated_twice(
    calibrated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, recipe in (("again", CALIBRATED), ("not", CALIBRATED.replace(calibrate=False))):
        path = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(runfolder, "write_metrics", lambda *rest: kill())
            with pytest.raises(KilledError):
                train(MANY, CALIBRATED, test=TEST, out=path, progress=Callback())
        run = train(MANY, recipe, test=TEST, resume=path, progress=Callback())
        if recipe.calibrate:
            assert_same(run, calibrated)
        else:
            weights, trained = tensors(run)
            assert all(torch.equal(weights[name], trained[name]) for name in trained)


class Clock:
    """Advances by one tick per step only."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the loop and of the schedules; a step takes one tick."""
    clock, batch = Clock(), Augment.batch

    def ticking(self: Augment, indices: Any, epoch: int) -> Any:
        clock.time += TICK
        return batch(self, indices, epoch)

    speed = Speed(model="fast-xs", batch_size=3, step=TICK, inference=0.0, flops=1e6)
    ending = Ending(test=0.0, augmentation=0.0, rest=0.0)

    def choose(dataset: Dataset, recipe: Recipe, machine: Any) -> Choice:
        return Choice(recipe=recipe, speed=speed, seconds=180.0)

    monkeypatch.setattr(Augment, "batch", ticking)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock, monotonic=clock))
    monkeypatch.setattr("peewit.training.resolve.choose_network", choose)
    monkeypatch.setattr(planner, "measure", lambda *_, **__: Measured(speed=speed, ending=ending))
    monkeypatch.setattr("peewit.trainer.Schedules", partial(Schedules, now=clock))
    return clock


def test_time_budget_ends_within_an_epoch(clock: Clock, tmp_path: Path) -> None:
    recipe = RECIPE.replace(minutes=3.0)  # 18 steps: an epoch and a half
    run = train(DATA, recipe, test=TEST, out=tmp_path / "run", progress=Callback(), began=0.0)
    assert clock.time == 180
    assert run.status == "finished"
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert [row["images"] for row in run.history] == [36, 54]
    assert [row["seconds"] for row in run.history] == [120, 60]
    assert [row["images_per_second"] for row in run.history] == pytest.approx([0.3, 0.3])
    position = read_state(run.path / runfolder.CHECKPOINT)
    assert (position.epoch, position.step, position.spent) == (2, 0, 180)
    assert position.fraction_done == 1  # its schedule has ended


@pytest.mark.parametrize("place", [(0, 5), (0, STEPS), (1, 3)])
def test_resumed_run_uses_the_rest_of_its_budget(
    clock: Clock, tmp_path: Path, place: tuple[int, int]
) -> None:
    path, recipe = tmp_path / "run", RECIPE.replace(minutes=3.0)
    with pytest.raises(Interrupted):
        train(DATA, recipe, test=TEST, out=path, progress=At(*place, interrupt), began=0.0)
    assert clock.time == TICK * (place[0] * STEPS + place[1])
    run = train(DATA, test=TEST, resume=path, progress=Callback(), began=clock.time)
    assert clock.time == 180
    assert run.status == "finished"
    assert [row["images"] for row in run.history] == [36, 54]


def test_larger_budget_continues_from_the_end(clock: Clock, tmp_path: Path) -> None:
    path, recipe = tmp_path / "run", RECIPE.replace(minutes=3.0)
    train(DATA, recipe, test=TEST, out=path, progress=Callback(), began=0.0)
    told = At()
    train(DATA, test=TEST, resume=path, progress=told, began=clock.time)
    assert clock.time == 180
    assert "is finished" in told.notes[-1]
    more = recipe.replace(minutes=6.0)
    with pytest.raises(UsageError, match=r"budget of 2 minutes: "):
        train(DATA, recipe.replace(minutes=2.0), test=TEST, resume=path, progress=Callback())
    run = train(DATA, more, test=TEST, resume=path, progress=Callback(), began=clock.time)
    assert clock.time == 360
    assert run.history[-1]["images"] == 108
    assert run.recipe.minutes == 6


def test_too_small_budget_reports_minimum(clock: Clock, tmp_path: Path) -> None:
    recipe = RECIPE.replace(minutes=1.0)
    with pytest.raises(UsageError, match=r"1 minute is not enough.*give --minutes 1\.8 or more"):
        train(DATA, recipe, test=TEST, out=tmp_path / "run", progress=Callback(), began=0.0)
    assert clock.time == 0
    assert not (tmp_path / "run").exists()


def test_unreached_accuracy_is_one_sentence_and_the_run_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    rounds = iter([0.02, 0.02])
    monkeypatch.setattr(schedules, "next_round", lambda *rest: next(rounds, None))
    command = ["train", "digits", "--until-accuracy", "1.0", "--model", "fast-xs", "--out", "run"]
    assert main([*command, "--threads", "1"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    last = output.err.splitlines()[-1]
    assert last.startswith("peewit: a validation accuracy of 100.0% was not reached: 2 rounds")
    todo = "peewit train --resume run --minutes 11"
    assert last.endswith(todo)
    position = read_state(Path("run/checkpoint.safetensors"))
    assert position.fraction_done == 1  # the round has ended
    assert len(position.rounds) == 1  # before that one
    # the same request again does not report success
    assert main(["train", "--resume", "run"]) == 1
    again = capsys.readouterr()
    assert again.out == ""
    assert "was not reached" in again.err
    assert again.err.rstrip().endswith(todo)
    run = Run.open("run")
    assert run.status == "finished"
    assert 0 < run.metrics["accuracy"] < 1


def test_missing_validation_is_recorded_for_the_finished_epoch(tmp_path: Path) -> None:
    # with a decaying learning rate not every epoch is validated
    recipe = RECIPE.replace(epochs=20)

    class Killed(Callback):
        def on_step_end(self, position: Any) -> None:
            if (position.epoch, position.step) == (4, 1):
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        train(DATA, recipe.replace(checkpoint_minutes=60), out=tmp_path / "run", progress=Killed())
    position = read_state(tmp_path / "run" / runfolder.CHECKPOINT)
    assert (position.epoch, position.step) == (4, 0)
    assert position.images > 0  # seen, and in no row yet
    change = recipe.replace(epochs=4, checkpoint_minutes=60)
    run = train(DATA, change, resume=tmp_path / "run", progress=Callback())
    assert run.status == "finished"
    assert run.history[-1]["epoch"] == 4
    assert read_state(run.path / runfolder.CHECKPOINT).epoch == 4
    assert Run.open(run.path).history == run.history


def test_calibration_can_be_requested_later(tmp_path: Path) -> None:
    recipe = RECIPE.replace(epochs=1, calibrate=False)
    run = train(DATA, recipe, test=TEST, out=tmp_path / "run", progress=Callback())
    asked, told = run.recipe.replace(calibrate=True), At()
    run = train(DATA, asked, test=TEST, resume=run.path, progress=told)
    assert any("held-out images, at least" in note for note in told.notes)
    assert (run.status, len(run.history)) == ("finished", 1)
    assert run.recipe.calibrate
    # the same request again does nothing
    again = At()
    train(DATA, asked, test=TEST, resume=run.path, progress=again)
    assert "is finished" in again.notes[-1]
