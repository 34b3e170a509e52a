"""What the READMEs say can be typed can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from peewit.cli import cli

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(path.read_text("utf-8")) if kind == language]


def command_lines(path: Path) -> list[str]:
    """Every line of a shell block, and everything like a command in the running text."""
    text = path.read_text("utf-8")
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(peewit [^`]+)`", text)
    return [line for line in lines if line.startswith("peewit ")]


@pytest.mark.parametrize("line", sorted({*command_lines(README), *command_lines(CHINESE)}))
def test_commands_parse(line: str) -> None:
    command: click.Command = cli
    words = shlex.split(line, comments=True)[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not isinstance(command, click.Group), f"no such command: {line}"
    # the running text names commands without their arguments
    if words or line in "\n".join(blocks(README, "sh")).splitlines():
        # parses options and arguments, and does nothing
        command.make_context(line, words)


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert "accuracy" in capsys.readouterr().out


def test_both_languages_show_the_same_code() -> None:
    assert BLOCK.findall(README.read_text("utf-8")) == BLOCK.findall(CHINESE.read_text("utf-8"))


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shown = re.findall(r"^make (\w+)", "\n".join(blocks(README, "sh")), re.MULTILINE)
    assert shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("path", [README, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:src|tests|benchmarks)/[\w/.-]+|\.ci/run)`", text)
    for target in (*links, *named):
        assert (ROOT / target).exists(), f"{path.name} names {target}"
