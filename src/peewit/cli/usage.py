"""Commands that report a wrong command line in one sentence, in the words that were typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import click

from peewit.errors import UsageError
from peewit.training.recipe import Recipe


class Command(click.Command):
    """A command that rejects extra arguments, and whose errors know which command raised them.

    click accepts extra arguments (``allow_extra_args``) and ``parse_args`` rejects them, so that
    the error can list them.
    """

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; raise ``click.UsageError`` if there are too many."""
        with _context_added(ctx):
            extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:  # set during completion of an unfinished line
            raise click.UsageError(f"too many arguments: {' '.join(extra)}", ctx)
        return extra


class Group(click.Group):
    """A group that lists its commands in order of use, and suggests the command that was meant."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group itself."""
        with _context_added(ctx):
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest similar names if there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise click.UsageError(
                f"there is no command {name!r}{_did_you_mean(name, self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


@contextmanager
def _context_added(context: click.Context) -> Iterator[None]:
    """Add the context to the errors that click's parser raises without one."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or context
        raise


def usage_sentence(error: click.ClickException) -> str:
    """Return the error as one sentence, where click would print several lines.

    The sentence is built from the attributes of the exception, not from click's own sentences,
    which change from release to release.

    Examples
    --------
    >>> usage_sentence(click.NoSuchOption("--epoch", possibilities=["--epochs"]))
    'there is no option --epoch; did you mean --epochs?'
    >>> option = click.Option(["--to"], type=click.Choice(["onnx", "keras"]))
    >>> usage_sentence(click.MissingParameter(param=option))
    '--to is missing: it must be onnx or keras'
    """
    sentence = _sentence(error)
    context = error.ctx if isinstance(error, click.UsageError) else None
    # a suggestion needs no further help
    if context is None or sentence.endswith("?"):
        return sentence
    return f"{sentence}; see '{context.command_path} --help'"


def _sentence(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        return f"there is no option {name}{_did_you_mean(name, error.possibilities or ())}"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} {'takes no' if _is_flag(error) else 'needs a'} value"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        kind = error.param.type
        choices = f": it must be {listed(kind.choices)}" if isinstance(kind, click.Choice) else ""
        return f"{typed_name(error.param)} is missing{choices}"
    return error.format_message()


def _is_flag(error: click.BadOptionUsage) -> bool:
    """Return whether the option with a missing or an unexpected value is a flag."""
    assert error.ctx is not None  # see _context_added
    return any(
        parameter.is_flag
        for parameter in error.ctx.command.get_params(error.ctx)
        if isinstance(parameter, click.Option)
        and error.option_name in (*parameter.opts, *parameter.secondary_opts)
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def typed_name(parameter: click.Parameter) -> str:
    """Return the name of a parameter as the command's help shows it.

    >>> typed_name(click.Option(["-n", "--number"])), typed_name(click.Argument(["image"]))
    ('--number', 'IMAGE')
    """
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name.replace("|", " or ").removesuffix("...")


def listed(names: Iterable[object]) -> str:
    """Return alternatives as part of a sentence.

    >>> listed(["bash", "zsh", "fish"])
    'bash, zsh or fish'
    """
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last


@contextmanager
def flags_named(given: Iterable[str]) -> Iterator[None]:
    """Let an error about a recipe field name the flag by which the field was ``given``.

    Examples
    --------
    >>> with flags_named(["image_size"]):
    ...     raise UsageError("is 4", "the model needs at least 22", fields=["image_size"])
    Traceback (most recent call last):
    ...
    peewit.errors.UsageError: --image-size is 4: the model needs at least 22
    """
    flags = {field.name: flag_of(field) for field in dataclasses.fields(Recipe)}
    names = {name: flags.get(name) or name for name in given}
    try:
        yield
    except UsageError as error:
        if not error.fields:
            raise
        named = [names.get(field, field) for field in error.fields]
        raise UsageError(error.problem, error.why, error.todo, fields=named) from error


def flag_of(field: dataclasses.Field[object]) -> str | None:
    """Return the command-line flag of a recipe field, or None if it has none."""
    flag: str | None = field.metadata.get("flag", "--" + field.name.replace("_", "-"))
    return flag
