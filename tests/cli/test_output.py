"""Notes and failures on stderr take one line each, whatever names they contain."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "gbk", "utf-16"])
def test_json_does_not_depend_on_the_encoding_of_the_console(encoding: str) -> None:
    # a class, an emoji, a file whose name is not UTF-8, and numbers that JSON lacks
    value = {"class": "猫 Bär 🐈", "file": "a\udcff.png", "loss": float("nan"), "top": float("inf")}
    code = (
        "import sys, peewit.cli\n"
        "from peewit.__main__ import main\n"
        "from peewit.cli.output import print_json\n"
        f"peewit.cli.cli.main = lambda *a, **k: print_json(eval({repr(value)!a}, "
        "{'nan': float('nan'), 'inf': float('inf')}))\n"
        "sys.exit(main(['runs']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode("utf-8")) == value | {"loss": None, "top": None}
    assert b"NaN" not in done.stdout
