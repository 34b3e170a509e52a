"""The logs of a run, read by TensorBoard's own reader."""

from __future__ import annotations

import io
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import peewit.trainer
from made_runs import make_run
from peewit import report
from peewit.__main__ import main
from peewit.data.dataset import Dataset
from peewit.errors import PeewitError
from peewit.report import tensorboard
from peewit.report.tensorboard import EVERY, FOLDER, TensorBoard
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.trainer import train
from peewit.training import checkpoint
from peewit.training.callbacks import Callback
from peewit.training.progress import Lines
from peewit.training.recipe import Recipe

# 54 training images: 14 steps per epoch, so that multiples of ten fall within the epochs
RECIPE = Recipe(epochs=2, batch_size=4, threads=1, image_size=22, checkpoint_minutes=0)
STEPS = 14


class Telling(Callback):
    """Records the events, and interrupts training at a step."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.stop_at = stop_at
        self.notes: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.losses: dict[int, float] = {}
        self.calls: list[str] = []

    def on_train_begin(self, *_: Any) -> None:
        self.calls.append("start")

    def on_step_end(self, position: Any) -> None:
        self.losses[position.epoch * STEPS + position.step] = position.loss_sum
        if (position.epoch, position.step) == self.stop_at:
            raise KeyboardInterrupt

    def on_epoch_end(self, state: Any, row: dict[str, float] | None) -> None:
        if row is not None:
            self.rows.append(row)

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def without_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, which takes longer than training here, except for `logged`."""
    if "logged" in request.fixturenames:
        request.getfixturevalue("logged")
    monkeypatch.setattr(report, "after_training", lambda run, evidence, note: None)


@pytest.fixture(scope="module")
def logged(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Telling]:
    """A complete run with logs."""
    path, told = tmp_path_factory.mktemp("logged") / "run", Telling()
    logs = TensorBoard(told.on_note)
    return train(tiny, RECIPE, out=path, progress=told, callbacks=[logs]), told


def read(run: Path, log: str) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / FOLDER / log), size_guidance={"images": 0, "scalars": 0})
    return reader.Reload()


def scalars(run: Path, log: str, name: str) -> dict[int, float]:
    return {one.step: one.value for one in read(run, log).Scalars(name)}


def steps(run: Path, name: str) -> list[int]:
    return [one.step for one in read(run, "training").Scalars(name)]


def with_old_logs(path: Path) -> Path:
    for file in path.glob(f"{FOLDER}/*/events*"):
        # the name has the second in it, and a test may begin again within the same one
        file.rename(file.with_name("events.out.tfevents.0000000001.first"))
    return path


def test_curves_are_the_history_s(logged: tuple[Run, Telling]) -> None:
    run, _ = logged
    for log, prefix in (("training", ""), ("validation", "validation_")):
        for name in ("loss", "accuracy"):
            found = scalars(run.path, log, f"epoch/{name}")
            assert list(found) == [STEPS, 2 * STEPS]
            expected = [row[prefix + name] for row in run.history]
            assert list(found.values()) == pytest.approx(expected, rel=1e-6)
    speed = scalars(run.path, "training", "speed/images_per_second")
    assert list(speed.values()) == pytest.approx(
        [row["images_per_second"] for row in run.history], rel=1e-6
    )


def test_every_ten_steps_are_averaged(logged: tuple[Run, Telling]) -> None:
    run, told = logged
    found = scalars(run.path, "training", "step/loss")
    assert list(found) == [10, 20] == list(range(EVERY, 2 * STEPS, EVERY))
    assert found[10] == pytest.approx(told.losses[10] / 40, rel=1e-6)
    # the second epoch starts after step 14: only its 6 steps count
    assert found[20] == pytest.approx(told.losses[20] / 24, rel=1e-6)
    accuracy = scalars(run.path, "training", "step/accuracy")
    assert all(0 <= value <= 1 for value in accuracy.values())


def test_final_pictures_are_logged(logged: tuple[Run, Telling]) -> None:
    run, _ = logged
    reader = read(run.path, "final")
    names = {Path(name).stem for name in runfolder.PICTURES}
    assert set(reader.Tags()["images"]) == names
    assert "confusion" in names
    for name in names:
        (one,) = reader.Images(name)
        assert one.step == 2 * STEPS
        with (
            Image.open(io.BytesIO(one.encoded_image_string)) as kept,
            Image.open(run.path / f"{name}.png") as drawn,
        ):
            assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(drawn.convert("RGB")))
    (text,) = reader.Tensors("recipe/text_summary")
    assert "batch_size: 4" in text.tensor_proto.string_val[0].decode()


def test_other_callbacks_are_called_too(logged: tuple[Run, Telling]) -> None:
    run, told = logged
    assert told.calls == ["start", "close"]
    assert told.rows == run.history
    assert len(told.losses) == 2 * STEPS
    assert any("testing on" in note for note in told.notes)


def test_logging_does_not_change_the_weights(
    logged: tuple[Run, Telling], tiny: Dataset, tmp_path: Path
) -> None:
    plain = train(tiny, RECIPE, out=tmp_path / "plain", progress=Callback())
    weights = (plain.path / runfolder.WEIGHTS).read_bytes()
    assert weights == (logged[0].path / runfolder.WEIGHTS).read_bytes()


def test_resumed_run_continues_its_logs(
    logged: tuple[Run, Telling], tiny: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    logs, killed = TensorBoard(print), Telling((1, 6))
    with pytest.raises(KeyboardInterrupt):
        train(tiny, RECIPE, out=path, progress=Callback(), callbacks=[logs, killed])
    with_old_logs(path)
    assert not (path / FOLDER / "final").exists()
    train(tiny, resume=path, progress=Callback(), callbacks=[TensorBoard(print)])
    # repeated steps count once
    for name, expected in (("epoch/loss", [STEPS, 2 * STEPS]), ("step/loss", [10, 20])):
        assert steps(path, name) == expected
    whole = scalars(logged[0].path, "validation", "epoch/loss")
    assert scalars(path, "validation", "epoch/loss") == whole


def test_a_kill_after_any_checkpoint_loses_no_point(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], checkpoint.save

    def copying(file: Path, *arguments: Any) -> None:
        save(file, *arguments)
        saved.append(shutil.copytree(file.parent, tmp_path / f"{len(saved) + 1}"))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", copying)
        logs = TensorBoard(print)
        train(tiny, RECIPE, out=tmp_path / "run", progress=Callback(), callbacks=[logs])
    # one after each step and one more after each epoch
    assert len(saved) == 2 * STEPS + 2
    assert list(scalars(saved[9], "training", "step/loss")) == [10]
    assert list(scalars(saved[STEPS], "validation", "epoch/loss")) == [STEPS]
    killed = with_old_logs(saved[9])
    train(tiny, resume=killed, progress=Callback(), callbacks=[TensorBoard(print)])
    assert steps(killed, "step/loss") == [10, 20]
    assert steps(killed, "epoch/loss") == [STEPS, 2 * STEPS]


def test_a_kill_before_the_first_checkpoint_leaves_no_point_twice(
    tiny: Dataset, tmp_path: Path
) -> None:
    class Copy(Callback):
        def on_step_end(self, state: Any) -> None:
            if (state.epoch, state.step) == (0, 12):
                shutil.copytree(tmp_path / "run", tmp_path / "killed")
                raise KeyboardInterrupt

    recipe = replace(RECIPE, checkpoint_minutes=60)
    logs = [TensorBoard(print), Copy()]
    with pytest.raises(KeyboardInterrupt):
        train(tiny, recipe, out=tmp_path / "run", progress=Callback(), callbacks=logs)
    killed = with_old_logs(tmp_path / "killed")
    assert steps(killed, "step/loss") == [10]
    train(tiny, resume=killed, progress=Callback(), callbacks=[TensorBoard(print)])
    assert steps(killed, "step/loss") == [10, 20]
    assert steps(killed, "epoch/loss") == [STEPS, 2 * STEPS]


def test_a_log_that_cannot_be_written_does_not_end_the_training(
    tiny: Dataset, tmp_path: Path
) -> None:
    class Full:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def add_scalar(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    told = Telling()
    logs = TensorBoard(told.on_note)
    logs._writer = Full
    run = train(tiny, RECIPE, out=tmp_path / "run", progress=told, callbacks=[logs])
    assert run.status == "finished"
    (said,) = (note for note in told.notes if "TensorBoard" in note)
    assert "cannot write" in said
    assert "no space left on device" in said


def test_without_tensorboard_installed_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PeewitError):
        tensorboard.summary_writer()
    assert main(["train", "digits", "--tensorboard"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.endswith("pip install 'peewit[tensorboard]'")
    assert not Path("runs").exists()


def test_the_command_that_shows_the_curves_names_the_folder(
    logged: tuple[Run, Telling], capsys: pytest.CaptureFixture[str]
) -> None:
    run, told = logged
    assert f"tensorboard --logdir {run.path / FOLDER} shows the curves" in told.notes
    TensorBoard(Lines().on_note).on_run_folder(Path("my run"))
    place = Path("my run") / FOLDER
    assert capsys.readouterr() == ("", f"note: tensorboard --logdir '{place}' shows the curves\n")


def test_the_flag_adds_the_callback(
    monkeypatch: pytest.MonkeyPatch, logged: tuple[Run, Telling]
) -> None:
    asked: list[dict[str, Any]] = []

    def work(*_: Any, **options: Any) -> Run:
        asked.append(options)
        return logged[0]

    monkeypatch.setattr(peewit.trainer, "train", work)
    assert main(["train", "digits", "--tensorboard"]) == 0
    assert main(["train", "digits", "--tensorboard", "--out", "my run"]) == 0
    assert main(["train", "digits"]) == 0
    assert [options["out"] for options in asked] == [None, Path("my run"), None]
    kinds = [[type(callback) for callback in options["callbacks"]] for options in asked]
    assert kinds == [[TensorBoard], [TensorBoard], []]


def test_a_resumed_run_continues_its_logs_without_the_flag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    run = make_run(tmp_path / "run")
    runfolder.note_facts(run.path, source={"source": "digits", "data": None, "coarse": False})

    def work(*_: Any, **options: Any) -> Run:
        asked.append(len(options["callbacks"]))
        return run

    monkeypatch.setattr(peewit.trainer, "train", work)
    resume = ["train", "--resume", str(run.path)]
    assert main(resume) == 0
    # even if it was killed before its first step
    TensorBoard(print).on_run_folder(run.path)
    assert main(resume) == 0
    assert main([*resume, "--no-tensorboard"]) == 0
    assert main(["train", "digits", "--no-tensorboard"]) == 0
    assert asked == [0, 1, 0, 0]
    capsys.readouterr()
    for module in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(resume) == 1
    assert capsys.readouterr().err.endswith("[tensorboard]', or add --no-tensorboard\n")


def test_trainings_that_begin_in_the_same_second_have_separate_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(time, "strftime", lambda form: "2026-07-01-120000")
    command = ["train", "digits", "--tensorboard", "--epochs", "1", "--image-size", "22"]
    begun: list[Any] = []

    def work(*data: Any, **options: Any) -> Run:
        begun.append(options)
        if len(begun) == 1:  # during the planning of this run, a second one creates its folder
            assert main(command) == 0
        return train(*data, **options)

    monkeypatch.setattr(peewit.trainer, "train", work)
    assert main(command) == 0
    said = capsys.readouterr().err
    first = Path("runs/2026-07-01-120000-digits-tutorial")
    for path in (first, first.with_name(f"{first.name}-2")):
        assert len(scalars(path, "validation", "epoch/loss")) == 1
        assert f"note: tensorboard --logdir {path / FOLDER} shows the curves\n" in said
