"""Consoles, text tables, and pictures in the terminal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from peewit.system.terminal import (
    UNLIMITED,
    can_show_pictures,
    console_err,
    console_out,
    show_picture,
    show_pictures,
    text_table,
)


def terminal(colours: Any = "truecolor", width: int = 80, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Console(
        file=file, force_terminal=True, color_system=colours, width=width, legacy_windows=False
    )


def shown(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode()  # type: ignore[attr-defined]


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_a_cell_shows_two_pixels() -> None:
    console = terminal()
    image = np.array([[RED, GREEN], [BLUE, RED]], np.uint8)
    assert show_picture(image, console)
    text = shown(console)
    assert text.count("▀") == 2
    assert text.count("\n") == 1
    assert "\x1b[38;2;255;0;0;48;2;0;0;255m▀" in text
    assert "\x1b[38;2;0;255;0;48;2;255;0;0m▀" in text


def test_the_last_row_of_an_odd_height_has_no_background() -> None:
    console = terminal()
    assert show_picture(np.array([[RED], [GREEN], [BLUE]], np.uint8), console)
    assert "\x1b[38;2;0;0;255m▀" in shown(console)


def test_a_grey_picture() -> None:
    console = terminal()
    assert show_picture(np.array([[[7]], [[9]]], np.uint8), console)
    assert "\x1b[38;2;7;7;7;48;2;9;9;9m▀" in shown(console)


def test_a_wide_picture_is_scaled_down_to_the_terminal() -> None:
    console = terminal(width=40)
    assert show_picture(np.full((100, 200, 3), 128, np.uint8), console)
    lines = shown(console).splitlines()
    assert len(lines) == 10
    assert all(line.count("▀") == 39 for line in lines)
    assert "38;2;128;128;128" in lines[0]


def test_pictures_side_by_side_above_their_titles() -> None:
    console = terminal()
    images = [np.full((4, 6, 3), level, np.uint8) for level in (10, 20, 30)]
    assert show_pictures(images, ["frog", "automobile", "a\x1b[31mb"], console, columns=2)
    lines = shown(console).splitlines()
    assert [line.count("▀") for line in lines] == [12, 12, 0, 0, 6, 6, 0, 0]
    assert lines[2].split() == ["frog", "automo"]
    assert lines[6].strip() == "a?[31m"


def test_pictures_of_different_heights() -> None:
    console = terminal()
    images = [np.zeros((2, 3, 3), np.uint8), np.zeros((6, 3, 3), np.uint8)]
    assert show_pictures(images, ["", ""], console)
    assert [line.count("▀") for line in shown(console).splitlines()] == [6, 3, 3]


def test_256_colours_are_the_nearest() -> None:
    console = terminal("256")
    # the first is a dull red, which rich itself turns grey
    assert show_picture(np.array([[(120, 100, 98)], [(135, 175, 0)]], np.uint8), console)
    assert "\x1b[38;5;95;48;5;106m▀" in shown(console)


@pytest.mark.parametrize(
    "console",
    [
        terminal(None),
        terminal("standard"),
        terminal(encoding="latin-1"),
        Console(file=io.StringIO(), color_system="truecolor"),
    ],
    ids=["no colour", "16 colours", "no unicode", "no terminal"],
)
def test_nothing_is_shown_if_the_terminal_cannot(console: Console) -> None:
    assert not can_show_pictures(console)
    assert not show_picture(np.zeros((2, 2, 3), np.uint8), console)
    assert console.file.tell() == 0


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not show_picture(np.zeros((2, 2, 3), np.uint8), terminal())


def test_consoles_print_to_their_streams_and_ignore_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "[red]cat[/red] :smile: " + "long " * 100
    console_out().print(text)
    console_err().print("note")
    assert capsys.readouterr() == (text + "\n", "note\n")
    assert console_out().width == UNLIMITED


def test_table_columns_align_with_wide_characters() -> None:
    lines = text_table(["name", "n"], [["猫", "1"], ["cafe", "10"], ["[red]", "100"]], "lr")
    assert lines.splitlines() == [
        "name     n",
        "猫       1",
        "cafe    10",
        "[red]  100",
    ]


def test_table_is_never_cut() -> None:
    text = text_table(["a", "b"], [["x" * 500, "y" * 500]], "ll")
    assert text.splitlines()[1] == "x" * 500 + "  " + "y" * 500


def test_table_without_a_header_or_rows() -> None:
    assert text_table([], [["a", "1"], ["bcd", "23"]], "lr") == "a     1\nbcd  23"
    assert text_table(["a", "b"], [], "ll") == "a  b"
