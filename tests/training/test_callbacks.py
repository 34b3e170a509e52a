"""Callbacks of a user follow training, and can stop it."""

from __future__ import annotations

from pathlib import Path

import pytest

import peewit
from made_data import brightness
from peewit.training.callbacks import Callback, CallbackList, StopTraining, TrainInfo
from peewit.training.state import Row, TrainState

DATA, TEST = brightness(40, 22), brightness(12, 22, seed=1)
RECIPE = peewit.Recipe(epochs=2, batch_size=9, threads=1)


class Everything(Callback):
    """Records all calls."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.stop_at, self.state = stop_at, TrainState()
        self.calls: list[str] = []

    def on_note(self, text: str) -> None:
        self.calls.append("note")

    def on_run_folder(self, path: Path) -> None:
        assert (path / "run.json").is_file()
        self.calls.append("folder")

    def on_train_begin(self, info: TrainInfo, state: TrainState) -> None:
        assert (info.epochs, info.images, info.batch_size, info.steps) == (2, 37, 9, 5)
        self.calls.append("begin")

    def on_step_end(self, state: TrainState) -> None:
        self.state = state
        self.calls.append("step")

    def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
        assert row is not None
        self.calls.append(f"epoch {row['epoch']}")

    def on_interrupt(self, state: TrainState) -> None:
        self.calls.append("interrupt")

    def on_train_end(self, path: Path) -> None:
        assert peewit.Run.open(path).status == "finished"
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")

    def should_stop(self) -> bool:
        return (self.state.epoch, self.state.step) == self.stop_at


def test_all_events_arrive_in_order(tmp_path: Path) -> None:
    mine = Everything()
    peewit.train(
        *(DATA, RECIPE), test=TEST, out=tmp_path / "run", progress=Callback(), callbacks=[mine]
    )
    calls = [call for call in mine.calls if call != "note"]
    epochs = [*["step"] * 5, "epoch 1", *["step"] * 5, "epoch 2"]
    assert calls == ["folder", "begin", *epochs, "end", "close"]
    assert "note" in mine.calls


def test_training_stopped_by_a_callback_can_be_resumed(tmp_path: Path) -> None:
    path, mine = tmp_path / "run", Everything(stop_at=(1, 2))
    with pytest.raises(peewit.Interrupted, match="peewit train --resume"):
        peewit.train(DATA, RECIPE, test=TEST, out=path, progress=Callback(), callbacks=[mine])
    assert mine.calls[-3:] == ["step", "interrupt", "close"]
    assert peewit.Run.open(path).status == "interrupted"
    run = peewit.train(DATA, test=TEST, resume=path, progress=Callback())
    whole = peewit.train(DATA, RECIPE, test=TEST, out=tmp_path / "whole", progress=Callback())
    assert [row["loss"] for row in run.history] == [row["loss"] for row in whole.history]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (path, whole.path)]
    assert weights[0] == weights[1]


def test_state_is_saved_before_callbacks_are_called(tmp_path: Path) -> None:
    class Looking(Callback):
        def on_run_folder(self, path: Path) -> None:
            self.path = path

        def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
            run = peewit.Run.open(self.path)
            assert len(run.history) == state.epoch
            assert (self.path / "checkpoint.safetensors").is_file()

    run = peewit.train(
        DATA, RECIPE, out=tmp_path / "run", progress=Callback(), callbacks=[Looking()]
    )
    assert run.status == "finished"


def test_error_in_a_callback_closes_all_callbacks(tmp_path: Path) -> None:
    class Broken(Everything):
        def on_epoch_end(self, state: TrainState, row: Row | None) -> None:
            raise ZeroDivisionError

    mine = Broken()
    with pytest.raises(ZeroDivisionError):
        peewit.train(DATA, RECIPE, out=tmp_path / "run", progress=Callback(), callbacks=[mine])
    assert mine.calls[-1] == "close"
    assert peewit.Run.open(tmp_path / "run").status == "interrupted"


def test_any_callback_can_request_a_stop() -> None:
    class Stopping(Callback):
        def should_stop(self) -> bool:
            return True

    CallbackList([Callback()]).check_stop()
    with pytest.raises(StopTraining):
        CallbackList([Callback(), Stopping()]).check_stop()
