"""Validation of ``metrics.json`` and ``run.json``: required and optional fields, and their types.

A run folder may have been written by an older version or edited by hand. Errors are reported when
the run is opened, not when a field is first used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peewit.system.files import damaged

# Returns whether a value has the expected type
Kind = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return _count(value) or (isinstance(value, float) and math.isfinite(value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _any(value: Any) -> bool:
    return True


def _list(kind: Kind, length: int | None = None) -> Kind:
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(kind, value))
    )


def _values(kind: Kind) -> Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _object(**kinds: Kind) -> Kind:
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and kind(value[name]) for name, kind in kinds.items())
    )


BIN = _object(images=_count, confidence=_number, accuracy=_number)
SCORES = _object(
    name=_text, images=_count, predicted=_count, precision=_number, recall=_number, f1=_number
)
REQUIRED_METRICS: dict[str, Kind] = {
    "accuracy": _number,
    "accuracy_interval": _list(_number, 2),
    "loss": _number,
    "images": _count,
    "split": _text,
    "top3": _number,
    "calibration_error": _number,
}
# Missing in older runs, or only recorded by some recipes
OPTIONAL_METRICS: dict[str, Kind] = {
    "reliability": _list(BIN),
    "fingerprint": _text,
    "flops": _number,
    "gflops": _number,
    "share_of_best": _number,
    "single_view_accuracy": _number,
    "also_in_training": _object(
        images=_count,
        indices=_list(_count),
        accuracy_without=lambda value: value is None or _number(value),
    ),
    "temperature_scaling": _object(
        temperature=_number, images=_count, error_before=_number, error_after=_number
    ),
}
# All optional: an imported run only has its origin
DATASET: dict[str, Kind] = {
    "origin": _text,
    "images": _values(_count),
    "fingerprints": _values(_text),
}


def check_metrics(file: Path, metrics: Mapping[str, Any], classes: int) -> None:
    """Validate the contents of ``metrics.json``.

    Parameters
    ----------
    file : Path
        The file that they were read from, for the error message.
    metrics : mapping
    classes : int
        Number of classes of the model.

    Raises
    ------
    PeewitError
        A field is missing or has another type.
    """
    by_class = {
        "classes": _list(SCORES, classes),
        "confusion": _list(_list(_count, classes), classes),
    }
    _check(file, metrics, REQUIRED_METRICS | by_class, OPTIONAL_METRICS)


def check_facts(file: Path, facts: Mapping[str, Any]) -> None:
    """Validate the data set and environment in ``run.json``.

    Raises
    ------
    PeewitError
        A field is missing or has another type.
    """
    _check(file, facts, {"dataset": _values(_any), "environment": _values(_any)}, {})
    _check(file, facts["dataset"], {}, DATASET, "dataset.")


def _check(
    file: Path,
    values: Mapping[str, Any],
    required: Mapping[str, Kind],
    optional: Mapping[str, Kind],
    prefix: str = "",
) -> None:
    for name, kind in {**required, **optional}.items():
        if name not in values:
            if name in required:
                raise damaged(file, f"{prefix}{name} is missing")
        elif not kind(values[name]):
            raise damaged(file, f"{prefix}{name} is not valid")
