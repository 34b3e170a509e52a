"""The code blocks in the READMEs and the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from peewit.cli import cli

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = (
    README,
    CHINESE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced code block and its language."""

    language: str
    text: str


def name(page: Path) -> str:
    """Return the test id of a page."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    return [Block(*found) for found in BLOCK.findall(page.read_text("utf-8"))]


def shell_lines(page: Path) -> Iterator[str]:
    """Yield each command in the shell blocks of a page."""
    for language, text in blocks(page):
        if language == "sh":
            yield from commands(text)


def commands(text: str) -> list[str]:
    """Return the commands of a shell block, without comments and with continued lines joined.

    >>> commands("peewit runs  # all of them\\n\\npeewit compare A \\\\\\n  B\\n")
    ['peewit runs', 'peewit compare A B']
    """
    joined = re.sub(r" *\\\n *", " ", text)
    lines = (re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in joined.splitlines())
    return [line for line in lines if line]


def parse(line: str) -> None:
    """Fail unless the program accepts the options and arguments of a ``peewit`` command."""
    command, words = _command(line)
    if words != ["--help"]:
        assert not isinstance(command, click.Group), f"no such command: {line}"
        # parses the options and arguments without running the command
        command.make_context(line, words)


def parse_named(line: str) -> None:
    """Fail unless a ``peewit`` command quoted in running text exists, with its options."""
    command, words = _command(line)
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word in known | {"--help"}, f"no such option: {line}"
        else:
            assert not isinstance(command, click.Group), f"no such command: {line}"


def _command(line: str) -> tuple[click.Command, list[str]]:
    """Return the command that a line calls, and the remaining words."""
    command: click.Command = cli
    words = shlex.split(re.sub(r"\s+(>>?|\|)\s.*", "", line))[1:]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words
