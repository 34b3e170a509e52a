"""The files of a run folder: their names, and atomic reads and writes.

``run.json`` holds the facts about a run: classes, preprocessing, data source, environment.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from peewit.data.places import SOURCES, expanded
from peewit.errors import PeewitError, UsageError
from peewit.system.files import (
    cannot_read,
    cannot_write,
    check_format,
    check_text,
    damaged,
    read_limited,
    write_text,
)
from peewit.system.validation import missing, read_json
from peewit.training.recipe import Recipe
from peewit.training.state import HISTORY_COLUMNS, read_row

# Increase with every change that makes older versions misread the folder
FORMAT = 1
FACTS, RECIPE, HISTORY, METRICS = "run.json", "recipe.yaml", "history.csv", "metrics.json"
BACKBONE = "backbone.onnx"
WEIGHTS, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
CURVES, CONFUSION, MISTAKES = "curves.png", "confusion.png", "mistakes.png"
UNCERTAIN, RELIABILITY, SAMPLES = "uncertain.png", "reliability.png", "samples.png"
FILTERS, HEAT_MAPS = "filters.png", "heatmaps.png"
PICTURES = (CURVES, CONFUSION, MISTAKES, UNCERTAIN, RELIABILITY, SAMPLES, FILTERS, HEAT_MAPS)
REPORT = "report.html"
SPLIT, FOLDS = "split.csv", "folds.safetensors"
DISTANCES = "distances.safetensors"
PREDICTIONS, MISTAKES_TABLE = "predictions.csv", "mistakes.csv"
LOCK, PARTIAL = ".lock", ".part"
# 160,000 rows, and a fraction of the memory of a small machine
MOST_HISTORY = 16_000_000
# ten million pictures
MOST_SPLIT = 1_000_000_000


def create(path: Path, facts: Mapping[str, Any], recipe: Recipe) -> None:
    """Create the run folder ``path`` with ``run.json`` and ``recipe.yaml``, atomically.

    The file of a backbone is copied into it.

    Raises
    ------
    PeewitError
        The folder exists and is not empty, or it cannot be created.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}{PARTIAL}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if recipe.backbone is not None:
            shutil.copyfile(recipe.backbone, partial / BACKBONE)
        write_recipe(partial, recipe)
        write_facts(partial, {"format": FORMAT, "finished": False, **facts})
        if os.name == "nt" and path.is_dir():  # Windows cannot replace a folder by renaming
            path.rmdir()
        partial.rename(path)  # fails if another process has filled it in the meantime
    except OSError as error:
        check_free(path)
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def lasting_source(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``source`` with absolute paths, so that it is valid in any working directory.

    Raises
    ------
    UsageError
        A path is not valid UTF-8.
    """
    lasting = dict(source)
    for name in ("data", "source"):
        if lasting.get(name) and lasting[name] not in SOURCES:
            path = expanded(Path(lasting[name])).resolve()
            check_text(path)
            lasting[name] = str(path)
    return lasting


def default_folder(source: Mapping[str, Any], recipe: Recipe) -> Path:
    """Return a path below ``runs`` that does not exist yet, named after time, source and recipe."""
    name = Path(str(source.get("source") or "data")).name.removesuffix(".tar.gz")
    words = [time.strftime("%Y-%m-%d-%H%M%S"), name, recipe.name]
    stem = "-".join(re.sub(r"[^\w.-]+", "-", word) for word in words)
    path, number = Path("runs") / stem, 2
    while path.exists():
        path, number = Path("runs") / f"{stem}-{number}", number + 1
    return path


def check_free(path: Path) -> None:
    """Check that ``path`` is free for a new run: missing or an empty folder.

    Raises
    ------
    UsageError
        It is a file, a folder that is not empty or the current folder, or its name is not valid
        UTF-8.
    """
    check_text(path)
    if path.resolve() == Path.cwd():
        raise UsageError(f"{path} is the current folder", todo="choose a folder inside it")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UsageError(
            f"{path} is taken",
            "it exists and is not an empty folder" if path.is_dir() else "it is a file",
            "choose another folder, or continue a run with --resume",
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the run folder ``path`` for this process.

    Raises
    ------
    PeewitError
        Another process is training in this folder, or the folder cannot be written to.
    """
    lock = filelock.FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise PeewitError(
            f"{path} is being trained by another process",
            todo="wait until it has finished, or stop it",
        ) from error
    except OSError as error:
        raise cannot_write(path / LOCK, error) from error
    try:
        yield
    finally:
        lock.release()


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write ``run.json`` into the folder ``path``."""
    write_text(path / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def note_facts(path: Path, **facts: Any) -> None:
    """Update some of the facts in ``run.json``."""
    write_facts(path, read_json(path / FACTS) | facts)


def write_finished(path: Path, finished: bool) -> None:
    """Record in ``run.json`` whether the run is finished."""
    note_facts(path, finished=finished)


def write_data(path: Path, dataset: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Record in ``run.json`` the data that the run is trained on from now on."""
    note_facts(path, dataset=dict(dataset), source=dict(source))


def write_unsure(path: Path, below: float) -> None:
    """Record in ``run.json`` the confidence below which test-time augmentation is used."""
    note_facts(path, unsure_below=below)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write ``recipe.yaml`` into the folder ``path``, with the backbone that is there."""
    if recipe.backbone is not None:
        recipe = recipe.replace(backbone=BACKBONE)
    write_text(path / RECIPE, recipe.to_yaml())


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write ``history.csv`` into the folder ``path``."""
    text = io.StringIO()
    table = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    write_text(path / HISTORY, text.getvalue())


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json`` into the folder ``path``."""
    write_text(path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def write_split(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write ``split.csv``, the name and part of each image, into the folder ``path``."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "part"])
    table.writerows(rows)
    write_text(path / SPLIT, text.getvalue())


def read_split(path: Path) -> dict[str, str]:
    """Read the part of each image by its name; empty if the folder ``path`` has no ``split.csv``.

    Raises
    ------
    PeewitError
        The file is damaged.
    """
    file = path / SPLIT
    if not file.is_file():
        return {}
    try:
        rows = list(csv.reader(io.StringIO(read_limited(file, MOST_SPLIT).decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise damaged(file, "it is not a table of names and parts") from error
    except OSError as error:
        raise cannot_read(file, error) from error
    if not rows or rows[0] != ["name", "part"] or any(len(row) != 2 for row in rows):
        raise damaged(file, "it is not a table of names and parts")
    parts = dict(row for row in rows[1:])
    known = re.compile(r"training|validation|test|left out|fold [1-9]\d?")
    if len(parts) < len(rows) - 1 or not all(map(known.fullmatch, parts.values())):
        raise damaged(file, "a name is there twice, or a part is unknown")
    return parts


def read_facts(path: Path) -> dict[str, Any]:
    """Read ``run.json`` from the folder ``path``.

    Raises
    ------
    PeewitError
        ``path`` is not a run folder, or was written by a newer version of Peewit.
    """
    if not path.is_dir():
        raise PeewitError(f"there is no run folder {path}", todo="peewit runs lists the runs")
    if not (path / FACTS).is_file():
        raise PeewitError(
            f"{path} is not a run folder", f"it has no {FACTS}", "peewit runs lists the runs"
        )
    facts = read_json(path / FACTS)
    check_format(path / FACTS, facts.get("format"), FORMAT)
    return facts


def read_recipe(path: Path) -> Recipe:
    """Read ``recipe.yaml`` from the folder ``path``."""
    if not (path / RECIPE).is_file():
        raise missing(path / RECIPE)
    try:
        recipe = Recipe.from_yaml(path / RECIPE)
        # in this folder, whatever the recipe says
        kept = {} if recipe.backbone is None else {"backbone": str(path / BACKBONE)}
        return recipe.replace(**kept)
    except UsageError as error:
        # The value comes from a file, so this is not an error of usage
        raise PeewitError(str(error)) from error


def read_history(path: Path, required: bool) -> list[dict[str, float]]:
    """Read ``history.csv`` from the folder ``path``; no rows if it is missing and not required."""
    file = path / HISTORY
    if not file.is_file():
        if required:
            raise missing(file)
        return []
    try:
        table = csv.DictReader(io.StringIO(read_limited(file, MOST_HISTORY).decode()))
        return [read_row(file, number, row) for number, row in enumerate(table, 1)]
    except (ValueError, csv.Error) as error:
        raise damaged(file, "it is not a table of epochs") from error
    except OSError as error:
        raise cannot_read(file, error) from error


def status(path: Path, facts: Mapping[str, Any]) -> str:
    """Return "finished", "running" (a process holds the lock), "interrupted" or "imported"."""
    if facts.get("finished"):
        return "finished"
    # An imported run stays "imported" until its first epoch of further training has ended
    untouched = facts.get("imported") and not (path / HISTORY).exists()
    stopped = "imported" if untouched else "interrupted"
    # A killed process cannot record its end, but the system releases its lock
    if not (path / LOCK).exists():
        return stopped
    try:
        with filelock.FileLock(path / LOCK, timeout=0):
            return stopped
    except filelock.Timeout:
        return "running"
    except OSError:  # a read-only copy: no process can train in it
        return stopped


def sweep(path: Path) -> None:
    """Remove partial files that a killed process left in the folder ``path``."""
    for file in path.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)


def remove_results(path: Path) -> None:
    """Remove metrics, report, tables and pictures: further training makes them out of date."""
    for name in (METRICS, DISTANCES, REPORT, PREDICTIONS, MISTAKES_TABLE, *PICTURES):
        (path / name).unlink(missing_ok=True)
