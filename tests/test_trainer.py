"""``peewit.train`` from start to finish, with real kills and signals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from made_data import brightness
from peewit import plots, report
from peewit.data.dataset import Dataset
from peewit.errors import Interrupted, PeewitError, UsageError
from peewit.models.registry import build
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training.budget import planner
from peewit.training.callbacks import Callback
from peewit.training.checkpoint import read_tensors, write_tensors
from peewit.training.recipe import Recipe
from watching import At

# 37 training images (3 more are held out): 3 epochs of 5 steps, the last step being smaller. One
# thread, because two wait for each other on a busy machine; the test with kills uses two.
RECIPE = Recipe(epochs=3, batch_size=8, threads=1, checkpoint_minutes=0)
STEPS = 5

# the program of a process that will be killed: it prints each step, and waits in the last one, so
# that it is killed in time on any machine
CHILD = """
import sys
import time
import numpy as np
import peewit
from peewit.training.callbacks import Callback

class Reporter(Callback):
    def on_train_begin(self, info, position):
        if 5 * position.epoch + position.step == 15:  # killed while it waited: no step is left
            self.on_step_end(position)
            time.sleep(60)

    def on_step_end(self, position):
        print(position.epoch, position.step, flush=True)
        if (position.epoch, position.step) == (2, 5):
            time.sleep(60)

out, resume, threads = sys.argv[1:]
with np.load("data.npz") as file:
    data = peewit.Dataset(file["images"], file["labels"], ["dark", "middle", "bright"])
recipe = peewit.Recipe(epochs=3, batch_size=8, threads=int(threads), checkpoint_minutes=0)
try:
    peewit.train(data, recipe, progress=Reporter(), **{"resume" if resume == "yes" else "out": out})
except peewit.PeewitError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return brightness(40, 22)


@pytest.fixture(autouse=True)
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots, which take longer than training here, except for `whole`."""
    if "whole" in request.fixturenames:
        request.getfixturevalue("whole")
    for name in ("save_curves", "save_confusion", "save_mistakes"):
        monkeypatch.setattr(plots, name, lambda path, *rest: path.touch())
    monkeypatch.setattr(report, "after_training", lambda run, evidence, note: None)


@pytest.fixture(scope="module")
def whole(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return train(data, RECIPE, out=tmp_path_factory.mktemp("whole") / "run", progress=Callback())


def weights(run: Run | Path) -> dict[str, torch.Tensor]:
    path = run if isinstance(run, Path) else run.path
    return read_tensors(path / runfolder.WEIGHTS)[0]


def assert_same(one: Run | Path, other: Run | Path) -> None:
    """Assert that both have bit-identical weights."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


class StoppedAtError(Exception):
    """Simulates the end of the process."""


def start(folder: Path, data: Dataset, resume: bool, threads: int = 1) -> subprocess.Popen[str]:
    np.savez(folder / "data.npz", images=data.images, labels=data.labels)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, "run", "yes" if resume else "no", str(threads)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_run_folder_is_complete(whole: Run) -> None:
    assert {path.name for path in whole.path.iterdir()} - {runfolder.LOCK} == {
        *("run.json", "recipe.yaml", "history.csv", "metrics.json"),
        *("model.safetensors", "checkpoint.safetensors"),
        *("curves.png", "confusion.png", "mistakes.png", "uncertain.png", "reliability.png"),
        *("samples.png", "filters.png", "heatmaps.png", "report.html"),
        *("predictions.csv", "mistakes.csv"),
    }
    assert whole.status == "finished"
    assert whole.recipe == RECIPE.replace(fit="stretch")
    assert [row["epoch"] for row in whole.history] == [1, 2, 3]
    assert whole.metrics["split"] == "validation"
    assert whole.metrics["images"] == 3


def test_resume_after_kill_is_bit_identical(data: Dataset, tmp_path: Path) -> None:
    recipe = RECIPE.replace(threads=2)
    whole = train(data, recipe, out=tmp_path / "whole", progress=Callback())
    moments = random.Random(5)
    for killed, last in enumerate(sorted(moments.sample(range(2, 3 * STEPS - 1), 3))):
        child = start(tmp_path, data, resume=killed > 0, threads=2)
        assert child.stdout is not None
        for line in child.stdout:
            epoch, step = map(int, line.split())
            if epoch * STEPS + step > last:
                break
        time.sleep(moments.random() * 0.05)  # somewhere in a save, a step or a validation
        child.kill()
        _, complaint = child.communicate()
        assert complaint == ""
        assert child.returncode not in (0, 1, 2)
    run = Run.open(tmp_path / "run")
    assert run.status == "interrupted"
    (tmp_path / "run" / ".history.csv.left.part").touch()  # as a kill within a write leaves it
    finished = train(data, resume=tmp_path / "run", progress=Callback())
    assert finished.status == "finished"
    assert len(finished.history) == 3
    assert not list(finished.path.glob("*.part"))
    assert not list(finished.path.glob(".*.part"))
    assert_same(finished, whole)


def test_resume_without_a_checkpoint_starts_over(whole: Run, data: Dataset, tmp_path: Path) -> None:
    child = start(tmp_path, data, resume=False)
    while not (tmp_path / "run" / "run.json").exists():
        assert child.poll() is None
        time.sleep(0.001)
    child.kill()
    child.communicate()
    assert_same(train(data, resume=tmp_path / "run", progress=Callback()), whole)


def stop_here() -> None:
    raise StoppedAtError


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, STEPS), (2, 1), (2, STEPS)])
def test_resumes_from_any_step(
    whole: Run, data: Dataset, tmp_path: Path, epoch: int, step: int
) -> None:
    with pytest.raises(StoppedAtError):
        train(data, RECIPE, out=tmp_path / "run", progress=At(epoch, step, stop_here))
    torch.rand(3)  # the caller's random numbers must not matter
    assert_same(train(data, resume=tmp_path / "run", progress=Callback()), whole)


@pytest.mark.parametrize("writer", ["write_history", "write_metrics", "write_finished"])
def test_resumes_after_a_kill_between_two_files(
    whole: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    work = getattr(runfolder, writer)

    def dying(path: Path, value: object) -> None:
        if (path / runfolder.HISTORY).exists() and len(Run.open(path).history) >= 2:
            raise StoppedAtError
        work(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(runfolder, writer, dying)
        with pytest.raises(StoppedAtError):
            train(data, RECIPE, out=tmp_path / "run", progress=Callback())
    finished = train(data, resume=tmp_path / "run", progress=Callback())
    assert finished.metrics["accuracy"] == whole.metrics["accuracy"]
    assert_same(finished, whole)


def test_resuming_a_run_without_pictures_and_report_adds_them(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(run: Run, *rest: object) -> None:
        (run.path / runfolder.REPORT).touch()

    monkeypatch.setattr(report, "after_training", write)
    bare = train(data, RECIPE, out=tmp_path / "run", progress=Callback(), illustrated=False)
    assert not [name for name in bare.path.iterdir() if name.suffix in (".png", ".html")]
    run = train(data, resume=bare.path, progress=Callback())
    assert run.metrics == bare.metrics
    files = {file.name for file in run.path.iterdir()}
    assert {runfolder.REPORT, runfolder.CURVES, runfolder.CONFUSION, runfolder.MISTAKES} <= files


def test_a_kill_during_the_report_loses_nothing(
    whole: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[report.Evidence] = []

    def write(run: Run, evidence: report.Evidence, note: object) -> None:
        assert run.status == "finished"
        shown.append(evidence)
        (run.path / runfolder.REPORT).touch()
        (run.path / runfolder.SAMPLES).touch()

    monkeypatch.setattr(report, "after_training", write)
    path = shutil.copytree(whole.path, tmp_path / "run")
    tables = {
        name: (path / name).read_text()
        for name in (runfolder.PREDICTIONS, runfolder.MISTAKES_TABLE)
    }
    for name in (runfolder.REPORT, runfolder.SAMPLES, runfolder.CURVES, *tables):
        (path / name).unlink()
    progress = At(9, 9, stop_here)
    run = train(data, resume=path, progress=progress)
    assert progress.notes[0] == (
        f"{path} lacks curves.png, mistakes.csv, predictions.csv, report.html, samples.png: "
        "writing the report and its files"
    )
    assert {name: (path / name).read_text() for name in tables} == tables
    assert run.metrics == whole.metrics
    assert {file.name for file in path.iterdir()} == {file.name for file in whole.path.iterdir()}
    assert (len(shown[0].training), len(shown[0].judged)) == (37, 3)
    right = (shown[0].logits.argmax(1) == shown[0].judged.labels).mean()
    assert right == whole.metrics["accuracy"]
    # now it has everything
    again = At(9, 9, stop_here)
    train(data, resume=path, progress=again)
    assert "ask for more" in again.notes[0]
    assert len(shown) == 1
    # other data cannot show its mistakes
    (path / runfolder.REPORT).unlink()
    other = At(9, 9, stop_here)
    train(brightness(40, 22, seed=3), resume=path, progress=other)
    assert "lacks report.html, which only the data of the run can show" in other.notes[0]


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 64
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_refused_before_the_results_are_removed(
    whole: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*rest: object) -> None:
        pytest.fail("the machine is measured before the checkpoint is checked")

    monkeypatch.setattr(planner, "measure", measure)
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    flip_a_bit(copy / runfolder.CHECKPOINT)
    with pytest.raises(PeewitError, match=r"checkpoint\.safetensors: .* its checksum is wrong"):
        train(data, RECIPE.replace(epochs=4), resume=copy, progress=Callback())
    assert Run.open(copy).metrics == whole.metrics


def test_damaged_weights_give_no_answers(whole: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    flip_a_bit(copy / runfolder.WEIGHTS)
    with pytest.raises(PeewitError, match=r"model\.safetensors: .* its checksum is wrong"):
        Run.open(copy).model()


@pytest.mark.parametrize(
    "change",
    [
        {"step": STEPS + 1},
        {"epoch": 1},
        {"history": []},
        {"epoch": 2, "history": [{"epoch": 1}, {"epoch": 3}]},
        {"epoch": 2, "history": [{"epoch": 2}, {"epoch": 1}]},
    ],
)
def test_a_state_that_would_only_fail_at_the_end_is_refused_at_the_start(
    whole: Run, data: Dataset, tmp_path: Path, change: dict[str, Any]
) -> None:
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    tensors, metadata = read_tensors(copy / runfolder.CHECKPOINT)
    facts = json.loads(metadata["peewit"])
    if "history" in change:
        rows = zip(facts["position"]["history"], change["history"], strict=False)
        change |= {"history": [row | new for row, new in rows]}
    facts["position"] |= change
    metadata = {"peewit": json.dumps(facts)}
    write_tensors(copy / runfolder.CHECKPOINT, tensors, metadata)
    with pytest.raises(PeewitError, match="epochs, steps and history contradict each other"):
        train(data, RECIPE.replace(epochs=5), resume=copy, progress=Callback())
    assert Run.open(copy).metrics == whole.metrics


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    torch.rand(3)
    assert_same(train(data, RECIPE, out=tmp_path / "again", progress=Callback()), whole)
    other = train(data, RECIPE.replace(seed=1, epochs=1), out=tmp_path / "b", progress=Callback())
    assert not torch.equal(
        weights(other)["logits.weight"],
        weights(whole)["logits.weight"],
    )


def test_checkpoints_within_an_epoch_do_not_change_the_weights(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    rare = RECIPE.replace(checkpoint_minutes=60)
    assert_same(train(data, rare, out=tmp_path / "run", progress=Callback()), whole)


def test_a_finished_run_can_be_trained_for_more_epochs(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    run = train(data, RECIPE.replace(epochs=1), out=tmp_path / "run", progress=Callback())
    progress = At(9, 9, stop_here)
    elsewhere = run.environment | {"torch": "1.0", "command": "peewit train it"}
    runfolder.note_facts(run.path, environment=elsewhere)
    run = train(data, run.recipe.replace(epochs=3), resume=run.path, progress=progress)
    # the command is that of the start, the rest describes this machine
    assert run.environment["command"] == "peewit train it"
    assert run.environment["torch"] == torch.__version__
    assert run.recipe.epochs == 3
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert_same(run, whole)
    again = train(data, resume=run.path, progress=progress)
    assert "ask for more" in progress.notes[-1]
    assert again.metrics == run.metrics


def test_outdated_results_are_removed(data: Dataset, tmp_path: Path) -> None:
    run = train(data, RECIPE.replace(epochs=1), out=tmp_path / "run", progress=Callback())
    with pytest.raises(StoppedAtError):
        train(data, RECIPE, resume=run.path, progress=At(1, 2, stop_here))
    assert not (run.path / "metrics.json").exists()
    assert not (run.path / "confusion.png").exists()
    assert Run.open(run.path).metrics == {}
    with pytest.raises(UsageError, match="with epochs 1: training is already in epoch 2"):
        train(data, RECIPE.replace(epochs=1), resume=run.path, progress=Callback())


def test_random_state_and_threads_of_the_caller_are_restored(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    recipe = RECIPE.replace(epochs=1, threads=threads + 1)
    train(data, recipe, out=tmp_path / "run", progress=Callback())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_stops(
    whole: Run, data: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    progress = At(1, 2, lambda: signal.raise_signal(number))
    rare = RECIPE.replace(checkpoint_minutes=60)
    with pytest.raises(Interrupted, match=r"everything is saved; .*peewit train --resume"):
        train(data, rare, out=tmp_path / "run", progress=progress)
    assert signal.getsignal(number) is before
    run = Run.open(tmp_path / "run")
    assert run.status == "interrupted"
    assert len(run.history) == 1
    where = At(1, 3, lambda: where.notes.append("went on in the middle of the epoch"))
    assert_same(train(data, resume=run.path, progress=where), whole)
    assert where.notes.index("testing on 3 validation images") > where.notes.index(
        "went on in the middle of the epoch"
    )


def test_stop_before_training_changes_nothing(
    whole: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(planner, "measure", stopped)
    path = tmp_path / "run"
    with pytest.raises(Interrupted, match="nothing was saved yet"):
        train(data, RECIPE, out=path, progress=Callback())
    assert not path.exists()
    shutil.copytree(whole.path, path)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(Interrupted, match=r"the run is unchanged; .*peewit train --resume"):
        train(data, RECIPE.replace(epochs=5), resume=path, progress=Callback())
    assert before == {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_in_a_process_exits_with_130(whole: Run, data: Dataset, tmp_path: Path) -> None:
    child = start(tmp_path, data, resume=False)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, sentence = child.communicate()
    assert child.returncode == 130
    assert "peewit train --resume run" in sentence
    assert_same(train(data, resume=tmp_path / "run", progress=Callback()), whole)


def test_second_ctrl_c_stops_at_once_and_the_run_can_be_resumed(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(data, RECIPE, out=tmp_path / "run", progress=At(1, 2, twice))
    assert_same(train(data, resume=tmp_path / "run", progress=Callback()), whole)


def test_two_processes_cannot_train_in_one_folder(data: Dataset, tmp_path: Path) -> None:
    statuses = []

    def another() -> None:
        statuses.append(Run.open(tmp_path / "run").status)
        train(data, resume=tmp_path / "run", progress=Callback())

    with pytest.raises(PeewitError, match="is being trained by another process"):
        train(data, RECIPE, out=tmp_path / "run", progress=At(0, 1, another))
    assert statuses == ["running"]


def test_nan_loss_keeps_last_checkpoint(data: Dataset, tmp_path: Path) -> None:
    recipe = RECIPE.replace(lr=1e30)
    with pytest.raises(PeewitError, match=r"epoch 1, step \d.*lower learning rate \(--lr\)"):
        train(data, recipe, out=tmp_path / "run", progress=Callback())
    run = Run.open(tmp_path / "run")
    assert run.status == "interrupted"
    for tensor in read_tensors(run.path / runfolder.CHECKPOINT)[0].values():
        assert torch.isfinite(tensor).all()


def test_a_full_disk_keeps_the_last_checkpoint(
    whole: Run, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        progress = At(1, 2, lambda: patch.setattr(os, "fsync", full))
        with pytest.raises(PeewitError, match=r"checkpoint\.safetensors: no space left.*--resume"):
            train(data, RECIPE, out=tmp_path / "run", progress=progress)
    assert not list((tmp_path / "run").glob(".*.part"))
    assert_same(train(data, resume=tmp_path / "run", progress=Callback()), whole)


def test_final_metrics_are_those_of_the_test_set(data: Dataset, tmp_path: Path) -> None:
    test = brightness(20, 22, seed=1)
    recipe = RECIPE.replace(epochs=1)
    run = train(data, recipe, test=test, out=tmp_path / "run", progress=Callback())
    assert run.metrics["split"] == "test"
    assert run.metrics["images"] == 20
    accuracy = (run.logits(test.images).argmax(1) == test.labels).mean()
    assert run.metrics["accuracy"] == pytest.approx(accuracy)
    assert run.dataset["images"] == {"training": 37, "validation": 3, "test": 20}


def test_validation_on_the_test_set_is_noted(data: Dataset, tmp_path: Path) -> None:
    test, progress = brightness(20, 22, seed=1), At(9, 9, stop_here)
    recipe = RECIPE.replace(epochs=1, validate_on="test")
    run = train(data, recipe, test=test, out=tmp_path / "run", progress=progress)
    assert run.dataset["images"]["training"] == 40
    assert run.history[0]["validation_accuracy"] == pytest.approx(run.metrics["accuracy"])
    assert "biases the test accuracy" in progress.notes[0]
    with pytest.raises(UsageError, match="cannot validate on the test set: there is none"):
        train(data, recipe, out=tmp_path / "other", progress=Callback())


def test_initial_weights_are_those_of_the_model(data: Dataset, tmp_path: Path) -> None:
    run = train(data, RECIPE.replace(epochs=1, lr=1e-12), out=tmp_path / "r", progress=Callback())
    fresh = build("tutorial", (22, 22, 3), 3, seed=0).state_dict()
    assert torch.allclose(weights(run)["hidden.weight"], fresh["hidden.weight"], atol=1e-6)


def test_reported_numbers_are_in_the_history(whole: Run, data: Dataset) -> None:
    saved = json.loads((whole.path / "run.json").read_text())
    assert saved["dataset"]["fingerprints"]["training"] == data.fingerprint
    assert saved["environment"]["threads"] == 1
    assert asdict(whole.recipe)["threads"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 38}, "batch_size is 38: there are only 37 training images"),
        ({"validate_on": "test"}, "cannot validate on the test set: there is none"),
    ],
)
def test_unsuitable_recipe_is_refused_before_the_folder_is_created(
    data: Dataset, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        train(data, RECIPE.replace(**changes), out=tmp_path / "run", progress=Callback())
    assert not (tmp_path / "run").exists()


def test_resume_with_other_data_or_another_recipe_is_refused(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    other, longer = brightness(40, 22, seed=3), RECIPE.replace(epochs=4)
    with pytest.raises(PeewitError, match="this is not the data that it was trained on"):
        train(other, longer, resume=whole.path, progress=Callback())
    with pytest.raises(UsageError, match=r"lr 0\.5: it was trained with 0\.001"):
        train(data, RECIPE.replace(epochs=4, lr=0.5), resume=whole.path, progress=Callback())
    with pytest.raises(UsageError, match="already in epoch 3"):
        train(data, RECIPE.replace(epochs=2), resume=whole.path, progress=Callback())
    with pytest.raises(UsageError, match="stays in its folder"):
        train(data, resume=whole.path, out=tmp_path / "elsewhere", progress=Callback())
    assert Run.open(whole.path).status == "finished"


def test_moved_data_is_recognised(whole: Run, data: Dataset, tmp_path: Path) -> None:
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    moved = Dataset(data.images, data.labels, data.class_names, "somewhere else")
    run = train(moved, RECIPE.replace(epochs=4), resume=copy, progress=Callback())
    assert len(run.history) == 4


def test_existing_out_folder_is_refused_and_unchanged(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is taken: it exists and is not an empty folder"):
        train(data, RECIPE, out=tmp_path, progress=Callback())
    with pytest.raises(UsageError, match="is taken: it is a file"):
        train(data, RECIPE, out=tmp_path / "mine.txt", progress=Callback())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_default_folder_has_date_source_and_recipe(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "2026-07-01-120000")
    source = {"source": str(Path("my data.tar.gz").resolve()), "data": None, "coarse": False}
    recipe = RECIPE.replace(epochs=1)
    first = train(data, recipe, source=source, progress=Callback())
    second = train(data, recipe, source=source, progress=Callback())
    assert first.path == Path("runs/2026-07-01-120000-my-data-tutorial")
    assert second.path == Path("runs/2026-07-01-120000-my-data-tutorial-2")
    assert first.source == source


@pytest.mark.parametrize("out", [None, "mine"])
def test_race_for_a_folder_fails_only_for_an_explicit_name(
    out: str | None, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "2026-07-01-120000")
    create, asked = runfolder.create, list[Path]()

    def slow(path: Path, *rest: Any) -> None:
        asked.append(path)
        assert len(asked) <= 2
        if len(asked) == 1:
            path.mkdir(parents=True)
            (path / "theirs").touch()
        create(path, *rest)

    monkeypatch.setattr(runfolder, "create", slow)
    if out is None:
        run = train(data, RECIPE.replace(epochs=1), progress=Callback())
        assert run.path == Path("runs/2026-07-01-120000-data-tutorial-2")
    else:  # a name that was given is not another
        with pytest.raises(UsageError, match="mine is taken"):
            train(data, RECIPE, out=out, progress=Callback())
    assert [path.name for path in asked[0].iterdir()] == ["theirs"]


def test_other_folder_errors_are_not_retried(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refuse(path: Path, *_: Any) -> None:
        asked.append(path)
        raise UsageError("no") if len(asked) == 1 else AssertionError("tried again")

    monkeypatch.setattr(runfolder, "create", refuse)
    with pytest.raises(UsageError, match=r"^no$"):
        train(data, RECIPE, progress=Callback())


def test_source_is_stored_with_absolute_paths(data: Dataset, tmp_path: Path) -> None:
    recipe = RECIPE.replace(epochs=1)
    source = {"source": "cifar10", "data": "my/archive.tar.gz", "coarse": False}
    run = train(data, recipe, source=source, out=tmp_path / "a", progress=Callback())
    assert run.source == source | {"data": str(Path("my/archive.tar.gz").resolve())}
    run = train(data, recipe, source={"source": "my"}, out=tmp_path / "b", progress=Callback())
    assert run.source == {"source": str(Path("my").resolve())}


def test_trained_run_without_checkpoint_is_not_overwritten(
    whole: Run, data: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole.path, copy)
    (copy / "checkpoint.safetensors").unlink()
    before = (copy / "model.safetensors").read_bytes()
    with pytest.raises(PeewitError, match=r"checkpoint\.safetensors is missing"):
        train(data, RECIPE.replace(epochs=4), resume=copy, progress=Callback())
    assert (copy / "model.safetensors").read_bytes() == before
    assert Run.open(copy).status == "finished"
