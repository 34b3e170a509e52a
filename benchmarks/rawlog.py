"""Raw logs: append-only files with one JSON object per line, so killed benchmarks can resume."""

import json
import os
import statistics
import time
from pathlib import Path

import yaml

RESULTS = Path(__file__).parent / "results"


def today(name):
    """Return the path of today's log of the benchmark ``name``."""
    return RESULTS / f"{name}-{time.strftime('%Y-%m-%d')}.jsonl"


def newest(name):
    """Return the newest log of the benchmark ``name``, or None."""
    return max(RESULTS.glob(f"{name}-*.jsonl"), default=None)


def read(path):
    """Return the rows of a log, or none if there is no file. Skip lines cut short by a kill."""
    if path is None or not Path(path).is_file():
        return []
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def find(path, **what):
    """Return the first row of a log with these values, or None."""
    return next((row for row in read(path) if what.items() <= row.items()), None)


def append(path, row):
    """Append a row, on a new line even if the last line was cut short by a kill."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(row) + "\n")


def changes(texts):
    """Parse ``name=value`` texts; values are read as YAML.

    >>> changes(["precision=bfloat16", "lr=0.1"])
    {'precision': 'bfloat16', 'lr': 0.1}
    """
    return {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in texts)}


def spread(values):
    """Return mean, standard deviation (0 for one value) and number of ``values``."""
    values = list(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.mean(values), deviation, len(values)


def machine():
    """Return date, machine, versions and load average for a log row."""
    from peewit.training.budget.benchmark import has_bfloat16
    from peewit.training.environment import describe, usable_threads

    found = describe(usable_threads())
    del found["command"]  # contains local paths
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return found | {"has_bfloat16": has_bfloat16(), "load": load}
