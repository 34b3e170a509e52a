"""Write docs/commands.md: every command of the command line, its arguments, options and examples.

Run it after a change to the command line (``make docs`` does): a test fails while they differ.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from peewit.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
START = """\
<!-- Made by scripts/command_reference.py from the command line itself: change that, not this. -->

# Commands

Results go to stdout and notes to stderr. The exit code is 0 for success, 1 for a failure, 2 for a
command that makes no sense, and 130 after Ctrl-C. Every failure is one sentence. All of this page
is also in the terminal: `--help` after any command.
"""


def page() -> str:
    """Return the whole page."""
    parts = [START]
    root = click.Context(cli, info_name="peewit", **cli.context_settings)
    for command, context in walk(cli, root):
        parts += section(command, context)
    return "\n".join(parts)


def walk(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all below it, in the order in which the help lists them."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.commands[name]
            yield from walk(child, click.Context(child, info_name=name, parent=context))


def section(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the paragraphs and lists about one command."""
    usage = " ".join(command.collect_usage_pieces(context))
    level = "##" if context.parent is None or context.parent.parent is None else "###"
    yield f"{level} {context.command_path}\n"
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield escaped(inspect.cleandoc(command.help or "")) + "\n"
    if isinstance(command, click.Group):
        for child, below in walk(command, context):
            if below.parent is context:
                path = below.command_path
                about = child.get_short_help_str(limit=200)
                yield f"- [`{path}`](#{path.replace(' ', '-')}): {escaped(about)}"
    # every command has --help: it is told once
    shown = command.params if context.parent else command.get_params(context)
    for option in shown:
        record = option.get_help_record(context)
        if record is not None and isinstance(option, click.Option):
            flags, text = record
            yield f"- `{flags}`: {escaped(' '.join(text.split()))}"
    yield ""
    lines = examples(command)
    if lines:
        yield "```sh\n" + "\n".join(lines) + "\n```\n"


def examples(command: click.Command) -> list[str]:
    """Return what the end of a command's help says can be typed."""
    return [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]


def escaped(text: str) -> str:
    """Keep Markdown from reading signs of its own into a help text.

    >>> escaped("2**3 <file>")
    '2\\\\*\\\\*3 \\\\<file>'
    """
    return re.sub(r"([*_<`\\])", r"\\\1", text)


if __name__ == "__main__":
    text = page()
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"{PAGE} is out of date" if PAGE.read_text("utf-8") != text else 0)
    PAGE.write_text(text, "utf-8", newline="\n")
