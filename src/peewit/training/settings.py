"""What a recipe's fields are made of: a line of help, a rule in words and in code, a type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from peewit.errors import UsageError


def setting(
    default: Any,
    help: str,
    must: str = "",
    valid: Callable[[Any], bool] = lambda value: True,
    **flag: str | None,
) -> Any:
    """Return a field with its help, its rule in words and in code, and its command-line flag.

    ``flag`` is None for what is no flag; without it the flag is made from the field's name.
    """
    metadata = {"help": help, "must": must, "valid": valid, **flag}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(lowest: int) -> tuple[str, Callable[[Any], bool]]:
    """Return the rule of a setting in words and in code."""
    return f"at least {lowest}", lambda value: value >= lowest


def typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` if it has the type ``hint`` (a whole number is a fine float), or raise."""
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            choices = " or ".join(map(repr, typing.get_args(hint)))
            raise UsageError(f"{name} is {value!r}", f"it must be {choices}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    if not isinstance(value, hint) or isinstance(value, bool) != (hint is bool):
        kinds = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageError(f"{name} is {value!r}", f"it must be {kinds[hint]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}", "it must be a finite number")
    return value
