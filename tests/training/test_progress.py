"""The progress output: its contents, place and width."""

from __future__ import annotations

import io
import sys
import time
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from peewit.training import progress
from peewit.training.callbacks import TrainInfo
from peewit.training.progress import HEADER, Lines, LiveLine, Notebook, automatic
from peewit.training.state import TrainState

ROW = {
    "epoch": 1,
    "seconds": 83.4,
    "images_per_second": 1234.5,
    "loss": 1.63459,
    "accuracy": 0.4172,
    "validation_loss": 1.4604,
    "validation_accuracy": 0.4532,
}


class Clock:
    """A clock that advances on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def console(terminal: bool, width: int = 120) -> Console:
    # a fixed size and no colours, whatever the terminal that runs the tests
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        color_system=None,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )


def shown(lines: Lines) -> str:
    assert isinstance(lines.console.file, io.StringIO)
    return lines.console.file.getvalue()


def run(lines: Lines, clock: Clock) -> None:
    """Half of the first epoch in 100 s, then its end."""
    lines.on_train_begin(TrainInfo(10, 3200, 32), TrainState())
    clock.now += 100
    lines.on_step_end(TrainState(step=50, images=1600, correct=800, loss_sum=2400.0, seconds=80.0))
    lines.on_epoch_end(TrainState(), ROW)
    lines.on_epoch_end(TrainState(), None)


def test_plain_lines_contain_all_numbers(clock: Clock) -> None:
    lines = Lines(console(terminal=False))
    lines.on_note("something to know")
    run(lines, clock)
    assert shown(lines).splitlines() == [
        "note: something to know",
        HEADER,
        # 16 images/s overall, so 30,400 more take 1900 s; 20 images/s in training
        "epoch 1/10, step  50/100,    20 images/s, 31:40 left, loss 1.500, accuracy 50.0%",
        "  1/10     1.6346     41.7%           1.4604     45.3%     1,234     1:23",
    ]
    assert len(HEADER) == len(shown(lines).splitlines()[-1])


def test_a_name_in_a_note_cannot_control_the_terminal_or_forge_a_line() -> None:
    lines = Lines(console(terminal=False))
    lines.on_note("cannot write a\x1b[2J\nnote: b")
    assert shown(lines) == "note: cannot write a?[2J?note: b\n"


def test_plain_lines_are_printed_twice_a_minute(clock: Clock) -> None:
    lines = Lines(console(terminal=False))
    lines.on_train_begin(TrainInfo(10, 3200, 32), TrainState())
    for step in range(1, 91):
        clock.now += 1
        lines.on_step_end(TrainState(step=step, images=32 * step, seconds=step))
    assert shown(lines).count("left") == 3


def test_the_time_left_counts_only_the_current_session(clock: Clock) -> None:
    lines = Lines(console(terminal=False))
    lines.on_train_begin(TrainInfo(2, 100, 10), TrainState(epoch=1, step=5, images=50))
    clock.now += 40
    lines.on_step_end(TrainState(epoch=1, step=6, images=60, seconds=1.0))
    assert "2:40 left" in shown(lines)


def test_the_longest_numbers_fit_into_eighty_columns(clock: Clock) -> None:
    line = LiveLine(console(terminal=True, width=80))
    line.on_train_begin(TrainInfo(10, 45000, 32), TrainState())
    clock.now += 100
    line.on_step_end(TrainState(epoch=9, step=1400, images=44800, correct=40000, seconds=36.0))
    assert "accuracy 89.3%" in shown(line)


@pytest.mark.parametrize("width", [20, 60, 80, 100, 120, 200])
def test_the_live_line_fits_the_terminal(clock: Clock, width: int) -> None:
    line = LiveLine(console(terminal=True, width=width))
    line.on_train_begin(TrainInfo(10, 3200, 32), TrainState(history=[ROW]))
    before = len(shown(line))
    clock.now += 100
    line.on_step_end(TrainState(epoch=1, step=50, images=1600, correct=800, seconds=80.0))
    text = shown(line)[before:]
    assert "\n" not in text.strip("\n")
    assert "epoch 2/10" in text
    assert ("loss 0.000" in text) == (width >= 60)
    assert ("accuracy 50.0%" in text) == (width >= 80)
    assert ("validation 45.3%" in text) == (width >= 100)
    assert ("━" in text) == (width >= 120)
    line.close()


def test_the_live_line_changes_at_most_five_times_a_second(clock: Clock) -> None:
    line = LiveLine(console(terminal=True))
    line.on_train_begin(TrainInfo(10, 3200, 32), TrainState())
    for step in range(1, 101):
        clock.now += 0.01
        line.on_step_end(TrainState(step=step, images=32 * step, seconds=step))
    line.close()
    assert shown(line).count("left") <= 5


def test_closing_removes_the_status_line_and_restores_the_cursor(clock: Clock) -> None:
    line = LiveLine(console(terminal=True))
    run(line, clock)
    line.close()
    line.close()
    assert "\x1b[?25h" in shown(line)[shown(line).rindex("\x1b[?25l") :]


def test_a_notebook_has_one_output_that_is_updated(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[list[str]] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            outputs[-1].append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Any:
        outputs.append([data["text/plain"]])
        return Handle()

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    notebook = Notebook()
    run(notebook, clock)
    notebook.close()
    assert len(outputs) == 1
    assert "31:40 left" in outputs[0][1]
    assert outputs[0][-1].splitlines()[0] == HEADER.rstrip()
    assert "left" not in outputs[0][-1]
    assert len(outputs[0][-1].splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"force_terminal": False}, Lines),
        ({"force_terminal": True, "_environ": {"TERM": "dumb"}}, Lines),
        ({"force_terminal": True, "_environ": {"TERM": "xterm"}}, LiveLine),
        ({"force_jupyter": True}, Notebook),
    ],
)
def test_the_output_suits_terminal_notebook_and_log(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], kind: type[Lines]
) -> None:
    monkeypatch.setattr(
        progress, "console_err", lambda: Console(**{"force_jupyter": False, **options})
    )
    assert type(automatic()) is kind


def test_time_left_is_correct_if_several_epochs_share_a_row(clock: Clock) -> None:
    lines = Lines(console(False))
    lines.on_train_begin(TrainInfo(30, 1000, 100), TrainState())
    clock.now += 60
    # three and a half epochs without a row
    parts = lines.parts(TrainState(epoch=3, step=5, images=3500, seconds=60.0))
    assert "7:34 left" in [part.strip() for part in parts]
    clock.now += 600
    parts = lines.parts(TrainState(epoch=29, step=10, images=3000, seconds=60.0))
    assert "0:00 left" in [part.strip() for part in parts]
