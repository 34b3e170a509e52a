"""The entry point: exit codes, one sentence per failure, and no heavy imports for --help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import peewit
import peewit.cli
from peewit.__main__ import OUT_OF_MEMORY, main
from peewit.data.dataset import Dataset

HEAVY = ("torch", "matplotlib", "PIL", "sklearn", "safetensors")


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> None:
    # main installs its own hook, which must not outlive the test
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run peewit, or ``code`` instead, in a subprocess."""
    command = ["-c", code] if code else ["-m", "peewit"]
    return subprocess.run(
        [sys.executable, *command, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_needs_no_heavy_imports(option: str) -> None:
    code = (
        "import sys; from peewit.__main__ import main; main(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = run(option, code=code)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout
    assert result.stderr == ""


def test_python_m_peewit_prints_the_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"peewit {peewit.__version__}\n")


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "train" in capsys.readouterr().out


def raising(error: BaseException) -> Callable[..., Any]:
    def command(*arguments: Any, **options: Any) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (peewit.PeewitError("a is bad", "it is old", "take b"), 1, "a is bad: it is old; take b"),
        (peewit.UsageError("epochs is 0"), 2, "epochs is 0"),
        (peewit.PeewitError("no \x1b[2Ja\npeewit: b"), 1, "no ?[2Ja?peewit: b"),
        (peewit.Interrupted("stopped after step 7"), 130, "stopped after step 7"),
        (KeyboardInterrupt(), 130, "stopped"),
        (click.Abort(), 130, "stopped"),
        (MemoryError(), 1, OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), 1, OUT_OF_MEMORY),
        (OSError(errno.EIO, "Input/output error", "a.bin"), 1, "a.bin: input/output error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_failures_are_one_sentence(
    error: BaseException,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peewit.cli.cli, "main", raising(error))
    assert main(["train", "digits"]) == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"peewit: {sentence}\n")


BUG = (
    "import sys, peewit.cli\n"
    "from peewit.__main__ import main\n"
    "peewit.cli.cli.main = lambda *a, **k: {}['missing']\n"
    "sys.exit(main(['runs']))"
)


def test_a_bug_asks_for_a_report_without_a_traceback() -> None:
    result = run(code=BUG)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("peewit: this is a bug in Peewit: KeyError: 'missing'")
    assert "PEEWIT_DEBUG=1" in result.stderr


def test_a_bug_prints_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEEWIT_DEBUG", "1")
    result = run(code=BUG)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("printing", ["", "peewit.cli.cli.main = lambda *a, **k: print('x')"])
def test_a_closed_pipe_is_not_reported(printing: str) -> None:
    # the child waits for its input, so that the pipe is closed before it prints anything; click
    # flushes its output at once, print only at the end
    code = (
        "import sys, peewit.cli\n"
        "from peewit.__main__ import main\n"
        f"{printing}\n"
        "sys.stdin.read()\n"
        "sys.exit(main(['-h']))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.close()
    _, stderr = child.communicate(timeout=60)
    assert (child.returncode, stderr) == (0, b"")


AT_EXIT = (
    "import atexit, signal, sys, peewit.cli\n"
    "from peewit.errors import Interrupted\n"
    "from peewit.__main__ import main\n"
    "def stopped(*a, **k): raise {}\n"
    "peewit.cli.cli.main = stopped\n"
    "atexit.register(signal.raise_signal, signal.SIGINT)\n"
    "sys.exit(main())"
)


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "Interrupted('stopped')"])
def test_ctrl_c_while_python_exits_prints_no_traceback(raised: str) -> None:
    result = run(code=AT_EXIT.format(raised))
    assert (result.returncode, result.stderr) == (130, "peewit: stopped\n")


def test_ctrl_c_while_another_failure_is_handled_is_no_bug() -> None:
    code = (
        "import sys, peewit.cli, peewit.__main__\n"
        "def stopped(*a): raise KeyboardInterrupt\n"
        "peewit.__main__.reason_of = peewit.cli.cli.main = stopped\n"
        "def failing(*a, **k): raise OSError(5, 'x')\n"
        "peewit.cli.cli.main = failing\n"
        "sys.exit(peewit.__main__.main())"
    )
    result = run(code=code)
    assert (result.returncode, result.stderr) == (130, "peewit: stopped\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes fail otherwise on Windows")
def test_a_training_finishes_without_a_reader(tiny: Dataset, tmp_path: Path) -> None:
    # notes and a table on stderr, the result on stdout: `peewit train ... 2>&1 | head -1`
    code = (
        "import sys, numpy, peewit, peewit.cli, peewit.report, peewit.trainer\n"
        "from peewit.__main__ import main\n"
        "from peewit.cli.output import note, print_run\n"
        "peewit.report.after_training = lambda *a: None\n"
        "def work(*a, **k):\n"
        "    note('it begins')\n"
        "    images = numpy.load('tiny.npy')\n"
        "    data = peewit.Dataset(images, numpy.arange(len(images)) % 3, ['a', 'b', 'c'])\n"
        "    recipe = peewit.Recipe(epochs=1, threads=1, image_size=22)\n"
        "    print_run(peewit.train(data, recipe, out='run'))\n"
        "peewit.cli.cli.main = work\n"
        "sys.exit(main())"
    )
    np.save(tmp_path / "tiny.npy", tiny.images)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=writing, stderr=writing, cwd=tmp_path, timeout=120)
    os.close(writing)
    assert peewit.Run.open(tmp_path / "run").status == "finished"
    assert done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_harmless(closed: str) -> None:
    result = subprocess.run(
        f'"{sys.executable}" -m peewit --version {closed}',
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_public_names_are_imported_on_first_use() -> None:
    for name in peewit.__all__:
        assert getattr(peewit, name) is not None
    assert set(peewit.__all__) <= set(dir(peewit))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = peewit.nothing_like_this


def test_type_checkers_see_the_same_public_names() -> None:
    import ast

    tree = ast.parse(Path(peewit.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == peewit._PLACES
