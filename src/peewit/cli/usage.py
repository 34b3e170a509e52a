"""What is wrong with a command line, in a sentence that names things as they are typed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from peewit.errors import UsageError
from peewit.training.recipe import Recipe


def usage_sentence(error: click.ClickException) -> str:
    """Turn click's several lines about a wrong command line into one sentence.

    Examples
    --------
    >>> usage_sentence(click.NoSuchOption("--epoch", possibilities=["--epochs"]))
    'there is no option --epoch; did you mean --epochs?'
    >>> option = click.Option(["--to"], type=click.Choice(["onnx", "keras"]))
    >>> usage_sentence(click.MissingParameter(param=option))
    '--to is missing: onnx or keras'
    """
    what = _what(error)
    context = error.ctx if isinstance(error, click.UsageError) else None
    # a question is an answer of its own
    return f"{what}; see '{context.command_path} --help'" if context and what[-1] != "?" else what


def _what(error: click.ClickException) -> str:
    said = " ".join(error.format_message().split()).removesuffix(".")
    if isinstance(error, click.NoSuchOption):
        guess = " or ".join(error.possibilities or ())
        close = f"; did you mean {guess}?" if guess else ""
        return f"there is no option {error.option_name}{close}"
    if isinstance(error, click.BadOptionUsage):
        takes = "needs a value" if "requires" in said else "takes no value"
        return f"{error.option_name} {takes}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        kind = error.param.type
        choice = f": {_listed(kind.choices)}" if isinstance(kind, click.Choice) else ""
        return f"{_typed(error.param)} is missing{choice}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        found = re.match(r"(.+?) is not (?:a valid|one of|in the range) ", error.message)
        must = _must(error.param.type)
        if found and must:
            return f"{_typed(error.param)} is {found[1]}: it must be {must}"
        return f"{_typed(error.param)}: {error.message.removesuffix('.')}"
    if found := re.search(r"unexpected extra arguments? \((.*)\)", said):
        return f"too many arguments: {found[1]}"
    # click begins as a sentence of its own; "SOURCE" is a name
    return said if said[:2].isupper() else said[:1].lower() + said[1:]


def _typed(parameter: click.Parameter) -> str:
    """Return what a parameter is called in the command's help."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name.replace("|", " or ").removesuffix("...")


def _must(kind: click.ParamType[Any]) -> str:
    """Return what a value has to be; nothing for what click does not check itself."""
    if isinstance(kind, click.Choice):
        return _listed(kind.choices)
    if isinstance(kind, click.IntRange) and kind.max is not None:
        return f"a whole number from {kind.min} to {kind.max}"
    if isinstance(kind, click.IntRange):
        return f"a whole number, at least {kind.min}"
    return {"integer": "a whole number", "float": "a number"}.get(kind.name, "")


def _listed(names: Iterable[object]) -> str:
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last


@contextmanager
def flags_named(given: Iterable[str]) -> Iterator[None]:
    """Let an error about a field of the recipe name it by its flag, where that was ``given``.

    Examples
    --------
    >>> with flags_named(["image_size"]):
    ...     raise UsageError("image_size is 4", "the model needs at least 22")
    Traceback (most recent call last):
    ...
    peewit.errors.UsageError: --image-size is 4: the model needs at least 22
    """
    flags = {field.name: flag_of(field) for field in dataclasses.fields(Recipe)}
    names = {name: flags.get(name) or name for name in given}
    try:
        yield
    except UsageError as error:
        subject = re.match(r"\w+(?: and \w+)?(?= (?:is|are) )", error.what)
        if subject is None:
            raise
        named = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), subject[0])
        what = named + error.what[subject.end() :]
        raise UsageError(what, error.why, error.todo) from error


def flag_of(field: dataclasses.Field[object]) -> str | None:
    """Return the command line's flag for a field of the recipe; None for one that has none."""
    flag: str | None = field.metadata.get("flag", "--" + field.name.replace("_", "-"))
    return flag
