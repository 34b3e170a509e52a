"""The documentation says what the program does."""

from __future__ import annotations

import command_reference


def test_the_command_reference_is_of_this_command_line() -> None:
    current = command_reference.PAGE.read_text("utf-8")
    assert current == command_reference.page(), "run: python scripts/command_reference.py"
