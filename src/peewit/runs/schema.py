"""What a run's metrics and facts are made of: what is not so is named.

A folder may be older than this Peewit, or changed by hand. What is wrong is said when it is
opened, not where it happens to be needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peewit.system.files import damaged

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


def _each(kind: Kind) -> Kind:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _having(**kinds: Kind) -> Kind:
    return lambda value: (
        isinstance(value, dict)
        and all(name in value and kind(value[name]) for name, kind in kinds.items())
    )


BIN = _having(images=_count, confidence=_number, accuracy=_number)
SCORES = _having(
    name=_text, images=_count, predicted=_count, precision=_number, recall=_number, f1=_number
)
# name -> kind
NEEDED_METRICS: dict[str, Kind] = {
    "accuracy": _number,
    "accuracy_interval": _list(_number, 2),
    "loss": _number,
    "images": _count,
    "split": _text,
    "top3": _number,
    "calibration_error": _number,
}
# what an older run did not keep, or only some trainings have
MORE_METRICS: dict[str, Kind] = {
    "reliability": _list(BIN),
    "fingerprint": _text,
    "flops": _number,
    "gflops": _number,
    "share_of_best": _number,
    "single_view_accuracy": _number,
    "temperature_scaling": _having(
        temperature=_number, images=_count, error_before=_number, error_after=_number
    ),
}
# of an imported run there is only the origin
DATASET: dict[str, Kind] = {
    "origin": _text,
    "images": _each(_count),
    "fingerprints": _each(_text),
}


def check_metrics(file: Path, metrics: Mapping[str, Any], classes: int) -> None:
    """Refuse numbers of a final test of which one is missing or of another kind.

    Parameters
    ----------
    file : Path
        What they were read from.
    metrics : mapping
    classes : int
        How many the network tells apart.

    Raises
    ------
    PeewitError
        It says which.
    """
    by_class = {
        "classes": _list(SCORES, classes),
        "confusion": _list(_list(_count, classes), classes),
    }
    _check(file, metrics, NEEDED_METRICS | by_class, MORE_METRICS)


def check_facts(file: Path, facts: Mapping[str, Any]) -> None:
    """Refuse facts of a run that misstate what its data was, or where it was trained.

    Raises
    ------
    PeewitError
        It says which is missing or of another kind.
    """
    _check(file, facts, {"dataset": _each(_any), "environment": _each(_any)}, {})
    _check(file, facts["dataset"], {}, DATASET, "dataset.")


def _check(
    file: Path,
    values: Mapping[str, Any],
    needed: Mapping[str, Kind],
    more: Mapping[str, Kind],
    prefix: str = "",
) -> None:
    for name, kind in {**needed, **more}.items():
        if name not in values:
            if name in needed:
                raise damaged(file, f"it lacks {prefix}{name}")
        elif not kind(values[name]):
            raise damaged(file, f"it misstates {prefix}{name}")
