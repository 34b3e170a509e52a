"""Sentences on stderr are one line each, whatever the names in them."""

from __future__ import annotations

import pytest

from peewit.cli.output import complain, note
from peewit.errors import PeewitError

NAME = "a\x1b[2J\npeewit: all is well.png"


def test_a_name_in_a_note_or_a_complaint_steers_no_terminal_and_forges_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note(f"{NAME} is grey")
    complain(PeewitError(f"cannot read {NAME}", "es ist kein Bild für 猫"))
    assert capsys.readouterr().err.splitlines() == [
        "note: a?[2J?peewit: all is well.png is grey",
        "peewit: cannot read a?[2J?peewit: all is well.png: es ist kein Bild für 猫",
    ]
