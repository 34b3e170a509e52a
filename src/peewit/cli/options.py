"""What the commands share: option types, options, the flags of a recipe, and completion."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from peewit.cli.usage import Command, flag_of, listed, typed_name
from peewit.models.registry import MODELS
from peewit.training.recipe import PRESETS, Recipe

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


# click's types became generic in 8.2 (Choice) and after 8.3 (ParamType): older ones cannot be
# subscripted
class Integer(click.ParamType):  # type: ignore[type-arg]
    """A whole number from ``lowest`` to ``highest``."""

    name = "integer"

    def __init__(self, lowest: int | None = None, highest: int | None = None) -> None:
        self.lowest, self.highest = lowest, highest

    @property
    def must(self) -> str:
        """Return the rule in words."""
        if self.lowest is not None and self.highest is not None:
            return f"a whole number from {self.lowest} to {self.highest}"
        if self.lowest is not None:
            return f"a whole number, at least {self.lowest}"
        return "a whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ``value`` as a number; raise ``click.UsageError`` if it breaks the rule."""
        try:
            number = int(value)
        except ValueError:
            refuse(repr(value), self.must, param, ctx)
        too_small = self.lowest is not None and number < self.lowest
        if too_small or (self.highest is not None and number > self.highest):
            refuse(str(number), self.must, param, ctx)
        return number


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number with or without a fraction."""

    name = "float"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return ``value`` as a number; raise ``click.UsageError`` if it is none."""
        try:
            return float(value)
        except ValueError:
            refuse(repr(value), "a number", param, ctx)


class Choice(click.Choice):  # type: ignore[type-arg]
    """One of several words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``value``; raise ``click.UsageError`` if it is none of the words."""
        if value not in self.choices:
            refuse(repr(value), listed(self.choices), param, ctx)
        return value


def refuse(
    value: str, must: str, parameter: click.Parameter | None, context: click.Context | None
) -> NoReturn:
    """Raise ``click.UsageError`` with a sentence of our own about the value of a parameter."""
    name = typed_name(parameter) if parameter else "the value"
    raise click.UsageError(f"{name} is {value}: it must be {must}", context)


def complete(names: Callable[[], Iterable[tuple[str, str]]]) -> Completer:
    """Complete ``names`` (pairs of a name and its description), or paths if no name matches."""

    def completer(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=text) for name, text in names() if name.startswith(incomplete)
        ]
        return found or [CompletionItem(incomplete, type="file")]

    return completer


def _sources() -> Iterable[tuple[str, str]]:
    # imported here, because it imports numpy, for which --help should not wait
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
    help="Archive or folder to read the source from, instead of searching for it.",
)


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help, which click must not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def data_options(command: Decorated) -> Decorated:
    """Add ``--data`` and ``--coarse``, which say where a source is and how to read it."""
    coarse = click.option(
        "--coarse", is_flag=True, help="CIFAR-100: the 20 superclasses instead of the 100 classes."
    )
    return data_option(coarse(command))


def recipe_flags(command: Decorated) -> Decorated:
    """Add a flag for each recipe field that has one; None means the value of the recipe."""
    hints = typing.get_type_hints(Recipe)
    for field in reversed(dataclasses.fields(Recipe)):
        flag = flag_of(field)
        if flag is None:
            continue
        text = field.metadata["help"]
        text = text[:1].upper() + text[1:] + "."
        if field.default is not None and not isinstance(field.default, bool):
            text += f" [default: {field.default}]"
        option = click.option(
            f"{flag}/{flag.replace('--', '--no-', 1)}" if hints[field.name] is bool else flag,
            field.name,
            default=None,
            metavar="NAME" if field.name == "model" else field.metadata.get("metavar"),
            type=_click_type(hints[field.name]),
            help=text,
            shell_complete=complete(_models) if field.name == "model" else None,
        )
        command = option(command)
    return command


class RecipeCommand(Command):
    """A command whose help lists the flags of the recipe under a heading of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the flags of the recipe."""
        fields = {field.name for field in dataclasses.fields(Recipe)}
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                title = (
                    "Recipe options (the defaults are those of the tutorial recipe)"
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
    if typing.get_origin(hint) is Literal:
        return Choice(typing.get_args(hint))
    return {int: Integer(), float: Number()}.get(hint, hint)


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
    context: click.Context, _: click.Parameter, value: str | None
) -> list[int] | None:
    """Return the numbers of a list such as 7,100-103 in the order given.

    >>> parse_indices(None, None, "7,100-103")
    [7, 100, 101, 102, 103]
    """
    if value is None:
        return None
    numbers: list[int] = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None:
            raise click.UsageError(
                f"--indices: {part!r} is not a number such as 7 or a range such as 100-103", context
            )
        first, last = int(match[1]), int(match[2] or match[1])
        # the range is expanded before the size of the data set is known
        if not 0 <= last - first < 10_000:
            raise click.UsageError(
                f"--indices: {part!r} is not an ascending range of up to 10,000 images", context
            )
        numbers.extend(range(first, last + 1))
    return numbers
