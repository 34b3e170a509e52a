"""The fields of a recipe (help, rule and type) and its YAML file."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from peewit.errors import PeewitError, UsageError, reason_of


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


def typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` if it has the type ``hint`` (an int is a valid float), or raise an error."""
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            choices = " or ".join(map(repr, typing.get_args(hint)))
            raise UsageError(f"is {value!r}", f"it must be {choices}", fields=[name])
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if not isinstance(value, hint) or isinstance(value, bool) != (hint is bool):
        kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageError(f"is {value!r}", f"it must be {kinds[hint]}", fields=[name])
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"is {value!r}", "it must be a finite number", fields=[name])
    return value


def read_values(path: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields and values of a recipe's YAML file, without validation.

    ``hints`` are the fields' types: for a number, a text that looks like one is converted, because
    ``1e-3`` is a text in YAML 1.1.

    Raises
    ------
    UsageError
        It is not YAML, or not a mapping of fields to values.
    PeewitError
        The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise PeewitError(f"cannot read the recipe {path}", reason_of(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"see line {mark.line + 1}" if mark else ""
        raise UsageError(f"cannot read the recipe {path}", "it is not YAML", where) from error
    if not isinstance(values, dict) or node is None:
        raise UsageError(
            f"cannot read the recipe {path}",
            "it is not a mapping of fields to values",
            'write one per line, such as "epochs: 10"',
        )
    lines: dict[object, int] = {}
    for key, _ in node.value:
        if key.value in lines:  # YAML would silently use the last one
            twice = f"on lines {lines[key.value]} and {key.start_mark.line + 1}"
            raise UsageError(
                f"cannot read the recipe {path}", f"{key.value} appears twice, {twice}"
            )
        lines[key.value] = key.start_mark.line + 1
    numbers = {}
    for name, value in values.items():
        numbers[str(name)] = value
        if hints.get(name) in (float, float | None) and isinstance(value, str):
            try:
                numbers[name] = float(value)
            except ValueError:
                continue
    return numbers
