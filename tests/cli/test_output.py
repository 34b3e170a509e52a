"""Notes and failures on stderr take one line each, whatever names they contain."""

from __future__ import annotations

import pytest

from peewit.cli.output import complain, note
from peewit.errors import PeewitError

NAME = "a\x1b[2J\npeewit: all is well.png"


def test_a_name_cannot_control_the_terminal_or_forge_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note(f"{NAME} is grey")
    complain(PeewitError(f"cannot read {NAME}", "es ist kein Bild für 猫"))
    assert capsys.readouterr().err.splitlines() == [
        "note: a?[2J?peewit: all is well.png is grey",
        "peewit: cannot read a?[2J?peewit: all is well.png: es ist kein Bild für 猫",
    ]
