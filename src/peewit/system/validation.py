"""Read JSON, and validate values against types; an error names the file and the key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from peewit.errors import PeewitError
from peewit.system.files import cannot_read, damaged

# Limits that no training reaches, so that arithmetic with the values cannot overflow
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Quantity = Annotated[float, Meta(ge=0, le=1e30)]
Loss = Annotated[float, Meta(ge=0, le=1e39)]  # the difference of two float32 values
Share = Annotated[float, Meta(ge=0, le=1)]

T = TypeVar("T")


def validated(
    file: Path, value: Any, kind: type[T], *, where: str = "", numbers_as_text: bool = False
) -> T:
    """Return ``value``, read from ``file``, as ``kind``, which may be any type of msgspec.

    A TypedDict only keeps the keys that it declares. ``where`` is the place in the file, for the
    error message.

    Raises
    ------
    PeewitError
        A key is missing or has a value of another type.
    """
    try:
        return msgspec.convert(value, kind, strict=not numbers_as_text)
    except msgspec.ValidationError as error:
        raise damaged(file, where + _sentence(str(error))) from error


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; see ``parse_json``.

    Raises
    ------
    PeewitError
        The file is missing, cannot be read or is not a JSON object.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise missing(file) from error
    except OSError as error:
        raise cannot_read(file, error) from error
    return parse_json(file, content)


def parse_json(file: Path, content: bytes | str) -> dict[str, Any]:
    """Return the JSON object ``content`` of ``file``.

    Stricter than Python's parser: numbers are finite, texts are valid Unicode, and no key is given
    twice.

    Raises
    ------
    PeewitError
        It is not such an object.
    """
    try:
        value = msgspec.json.decode(content)
        # msgspec silently uses the last one
        json.loads(content, object_pairs_hook=lambda pairs: _check_unique(file, pairs))
    except (ValueError, RecursionError) as error:
        raise damaged(file, "it is not valid JSON") from error
    if not isinstance(value, dict):
        raise damaged(file, "it is not a JSON object")
    return value


def missing(file: Path) -> PeewitError:
    """Return the error for a missing file of a run."""
    return PeewitError(f"{file} is missing from the run folder", todo="restore it from a copy")


def _check_unique(file: Path, pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise damaged(file, f"{name} is given twice")
        seen.add(name)


def _sentence(message: str) -> str:
    """Return msgspec's message as part of a sentence.

    >>> _sentence("Expected `int`, got `float` - at `$.preprocessing.height`")
    'preprocessing.height is not valid (expected int, got float)'
    >>> _sentence("Object missing required field `loss` - at `$.history[2]`")
    'history[2].loss is missing'
    """
    problem, _, path = message.replace("`", "").partition(" - at $")
    place = path.removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field (\S+)", problem):
        return f"{place}.{missing[1]} is missing".removeprefix(".")
    return f"{place or 'it'} is not valid ({problem[0].lower()}{problem[1:]})"
