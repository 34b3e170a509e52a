"""The fields of a recipe (help, rule and type) and its YAML file."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from peewit.errors import PeewitError, UsageError, reason_of
from peewit.system.files import read_limited

# a recipe has about thirty lines
MOST_BYTES = 64_000
# in a number or a date
MOST_CHARACTERS = 100
TEXT = "tag:yaml.org,2002:str"


def setting(
    default: Any,
    help: str,
    must: str = "",
    valid: Callable[[Any], bool] = lambda value: True,
    **flag: str | None,
) -> Any:
    """Return a dataclass field with its help, its rule in words and in code, and its flag.

    ``flag=None`` means that there is no command-line flag; by default it has the field's name.
    """
    metadata = {"help": help, "must": must, "valid": valid, **flag}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(lowest: int) -> tuple[str, Callable[[Any], bool]]:
    """Return the rule "at least ``lowest``" in words and in code."""
    return f"at least {lowest}", lambda value: value >= lowest


def per_channel(text: str) -> tuple[float, ...]:
    """Return the numbers of a text such as 0.5,0.5,0.5; three NaN if it is not three numbers.

    >>> per_channel("0.5,0.25,1"), per_channel("0.5")
    ((0.5, 0.25, 1.0), (nan, nan, nan))
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    return values if len(values) == 3 else (math.nan,) * 3


def is_unicode(text: str) -> bool:
    """Return whether ``text`` can be written in UTF-8: YAML allows halves of surrogate pairs.

    >>> is_unicode("猫"), is_unicode("\\ud800")
    (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


def shown(value: Any) -> str:
    """Return ``value`` as in Python's code, shortened for an error message.

    >>> shown("x" * 1000)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4,300 digits
        return "a huge number"
    return text if len(text) <= MOST_CHARACTERS else f"{text[:39]}..."


def typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` if it has the type ``hint`` (an int is a valid float), or raise an error."""
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            choices = " or ".join(map(repr, typing.get_args(hint)))
            raise UsageError(f"is {shown(value)}", f"it must be {choices}", fields=[name])
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if not isinstance(value, hint) or isinstance(value, bool) != (hint is bool):
        kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageError(f"is {shown(value)}", f"it must be {kinds[hint]}", fields=[name])
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # NumPy's and PyTorch's integers
        raise UsageError(f"is {shown(value)}", "it must be less than 2**63", fields=[name])
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"is {value!r}", "it must be a finite number", fields=[name])
    return value


class _NotAllowed(yaml.MarkedYAMLError):
    """A form of YAML that a recipe does not need."""


class _FlatLoader(yaml.SafeLoader):
    """Reads a mapping of texts to plain values, and nothing that can grow beyond its text.

    A few hundred bytes of aliases stand for gigabytes; tags call constructors.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, or raise if it is not allowed in a recipe."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        wrong = (
            "an alias (*) is not allowed"
            if isinstance(event, yaml.AliasEvent)
            else "an anchor (&) is not allowed"
            if event.anchor
            else "a tag (!) is not allowed"
            if event.tag
            else "a list or mapping is not a value of a recipe"
            if parent and not isinstance(event, yaml.ScalarEvent)
            else ""
        )
        if wrong:
            raise _NotAllowed(problem=wrong, problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def read_values(path: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields and values of a recipe's YAML file, without validation.

    ``hints`` are the fields' types: for a number, a text that looks like one is converted, because
    ``1e-3`` is a text in YAML 1.1.

    Raises
    ------
    UsageError
        It is not YAML, or not a mapping of fields to plain values.
    PeewitError
        The file cannot be read, or is too large.
    """
    what = f"cannot read the recipe {path}"
    try:
        loader = _FlatLoader(read_limited(path, MOST_BYTES).decode())
        node = loader.get_single_node()
    except OSError as error:
        raise PeewitError(what, reason_of(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"see line {mark.line + 1}" if mark else ""
        why = str(error.problem) if isinstance(error, _NotAllowed) else "it is not YAML"
        raise UsageError(what, why, where) from error
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(
            what,
            "it is not a mapping of fields to values",
            'write one per line, such as "epochs: 10"',
        )
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = key.value, key.start_mark.line + 1
        if name in lines:  # YAML would silently use the last one
            raise UsageError(what, f"{name} appears twice, on lines {lines[name]} and {line}")
        lines[name] = line
        values[name] = _plain(what, value, numeric=hints.get(name) in (float, float | None))
    return values


def _plain(what: str, node: yaml.ScalarNode, numeric: bool) -> Any:
    """Return the value of ``node``; ``numeric`` also converts a text that looks like a number."""
    value: Any = node.value
    try:
        if node.tag != TEXT:
            # a number or date of a thousand digits is a mistake, and Python refuses to print it
            if len(value) > MOST_CHARACTERS:
                raise ValueError(value)
            value = yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, ArithmeticError, yaml.YAMLError) as error:
        line = node.start_mark.line + 1
        raise UsageError(what, f"{shown(node.value)} is not a value; see line {line}") from error
    if numeric and isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value
