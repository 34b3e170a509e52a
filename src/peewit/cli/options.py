"""What commands share: flags made from a Recipe's fields, and what a shell can complete."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from peewit.cli.usage import flag_of
from peewit.models.registry import MODELS
from peewit.training.recipe import PRESETS, Recipe

Command = TypeVar("Command", bound=Callable[..., Any])
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete(names: Callable[[], Iterable[tuple[str, str]]]) -> Completer:
    """Complete ``names`` (pairs of a name and a line about it), and paths where none fits."""

    def completer(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=text) for name, text in names() if name.startswith(incomplete)
        ]
        return found or [CompletionItem(incomplete, type="file")]

    return completer


def _sources() -> Iterable[tuple[str, str]]:
    # here, because the sources need numpy, for which --help should not wait
    from peewit.data.sources import SOURCES

    return SOURCES.items()


def _models() -> Iterable[tuple[str, str]]:
    return ((name, info.description) for name, info in MODELS.items())


def _runs() -> Iterable[tuple[str, str]]:
    return ((str(path), "run") for path in sorted(Path("runs").glob("*/")))


complete_source = complete(_sources)
complete_recipe = complete(lambda: ((name, f"model {PRESETS[name].model}") for name in PRESETS))
complete_run = complete(_runs)
complete_model = complete(lambda: [*_models(), *_runs()])

run_argument = click.argument(
    "folder", metavar="RUN", type=click.Path(path_type=Path), shell_complete=complete_run
)
data_option = click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="Archive or folder to read the source from, instead of looking for it.",
)


def examples(*lines: str) -> str:
    """Return the end of a command's help: what to type, not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def data_options(command: Command) -> Command:
    """Add ``--data`` and ``--coarse``, which say where and how a source is read."""
    coarse = click.option(
        "--coarse", is_flag=True, help="CIFAR-100: the 20 superclasses instead of the 100 classes."
    )
    return data_option(coarse(command))


def recipe_flags(command: Command) -> Command:
    """Add a flag for each field of Recipe that has one; None stands for what the recipe says."""
    hints = typing.get_type_hints(Recipe)
    for field in reversed(dataclasses.fields(Recipe)):
        flag = flag_of(field)
        if flag is None:
            continue
        text = field.metadata["help"]
        text = text[:1].upper() + text[1:] + "."
        if field.default is not None and not isinstance(field.default, bool):
            text += f" [{field.default}]"
        option = click.option(
            f"{flag}/{flag.replace('--', '--no-', 1)}" if hints[field.name] is bool else flag,
            field.name,
            default=None,
            type=_click_type(hints[field.name]),
            help=text,
            shell_complete=complete(_models) if field.name == "model" else None,
        )
        command = option(command)
    return command


class RecipeCommand(click.Command):
    """A command whose help lists the recipe's flags under a heading of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the flags of the recipe."""
        fields = {field.name for field in dataclasses.fields(Recipe)}
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                title = (
                    "Recipe, with the defaults of tutorial"
                    if parameter.name in fields
                    else "Options"
                )
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _click_type(hint: Any) -> Any:
    if typing.get_origin(hint) is UnionType:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return click.Choice(typing.get_args(hint)) if typing.get_origin(hint) is Literal else hint


def find_recipe(name: str) -> Recipe:
    """Return the preset or the YAML file that ``--recipe`` names.

    >>> find_recipe("tutorial").epochs
    10
    """
    path = Path(name)
    if name not in PRESETS and (path.suffix in (".yaml", ".yml") or path.is_file()):
        return Recipe.from_yaml(path)
    return Recipe.preset(name)


def parse_indices(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[int] | None:
    """Read whole numbers and ranges of them, both ends included, in the order given.

    >>> parse_indices(None, None, "7,100-103")
    [7, 100, 101, 102, 103]
    """
    if value is None:
        return None
    numbers: list[int] = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None:
            raise click.BadParameter(f"{part!r} is not like 7 or 100-103", context, parameter)
        first, last = int(match[1]), int(match[2] or match[1])
        # a range is written out before the data says how many pictures it has
        if not 0 <= last - first < 10_000:
            raise click.BadParameter(
                f"{part!r} is no range of up to 10,000 pictures", context, parameter
            )
        numbers.extend(range(first, last + 1))
    return numbers
