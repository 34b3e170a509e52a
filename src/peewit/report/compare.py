"""Several runs on one page: what each came to, and in what they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peewit.report import words
from peewit.report.charts import Chart, Intervals, Series, interval_chart, line_chart
from peewit.report.render import render
from peewit.runs.comparison import differences, facts, passes, readings
from peewit.runs.run import Run, names_of
from peewit.system.files import write_text
from peewit.system.text import duration

# The style sheet has so many colours, and so many kinds of lines
COLOURS, DASHES = 7, 3


def write_comparison(runs: Sequence[Run], out: Path) -> Path:
    """Write one HTML file that compares ``runs``; return its path.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    names = names_of(runs)
    differing = differences(runs)
    contents = {
        "title": f"{len(runs)} runs compared - Peewit",
        "runs": [_row(run, name) for run, name in zip(runs, names, strict=True)],
        "names": names,
        "intervals": _intervals(runs, names),
        "readings": readings(runs),
        "differences": [
            (name, ["-" if value is None else str(value) for value in row])
            for name, row in differing.items()
        ],
        "curves": [_chart(runs, names, key) for key in ("accuracy", "loss")],
        "legend": [(name, *_style(number)) for number, name in enumerate(names)],
        "recalls": _recalls(runs),
    }
    write_text(out, render("compare.html", **contents))
    return out


def _style(number: int) -> tuple[str, str]:
    colour = number % COLOURS
    return f"s{colour} dash{number // COLOURS % DASHES}", f"f{colour}"


def _row(run: Run, name: str) -> dict[str, str]:
    known = facts(run)
    told = known["accuracy"] is not None
    low, high = known["accuracy_interval"] or (0.0, 0.0)
    seconds, speed = known["seconds"], known["images_per_second"]
    return {
        "name": name,
        "path": known["run"],
        "status": known["status"],
        "accuracy": f"{known['accuracy']:.2%}" if told else "-",
        "interval": f"{low:.2%} to {high:.2%}" if told else "-",
        "split": known["split"] or "-",
        "loss": f"{known['loss']:.4f}" if told else "-",
        "epochs": passes(run),
        "time": duration(seconds) if seconds is not None else "-",
        "speed": f"{speed:,.0f}" if speed is not None else "-",
        "recipe": known["recipe"] or "-",
        "source": known["source"] or "-",
    }


def _intervals(runs: Sequence[Run], names: Sequence[str]) -> Intervals | None:
    tested = [
        (name, run.metrics["accuracy"], *run.metrics["accuracy_interval"])
        for name, run in zip(names, runs, strict=True)
        if run.metrics
    ]
    return interval_chart(tested) if tested else None


def _chart(runs: Sequence[Run], names: Sequence[str], key: str) -> Chart:
    series = []
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        stroke, fill = _style(number)
        for column, thin in ((key, " thin"), (f"validation_{key}", "")):
            points = [(row["epoch"], row[column]) for row in run.history if column in row]
            label = f"{name}, {'training' if thin else 'validation'}"
            series.append(Series(label, points, stroke + thin, fill + thin))
    return line_chart(key.capitalize(), series, percent=key == "accuracy", labelled=False)


def _recalls(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each class's recall in each run, where all know the same classes."""
    if not all(run.metrics for run in runs) or len({run.class_names for run in runs}) > 1:
        return []
    rows = []
    for number, name in enumerate(runs[0].class_names):
        found = [run.metrics["classes"][number] for run in runs]
        best = max(one["recall"] for one in found)
        rows.append(
            {
                "name": name,
                "recalls": [
                    (words.share(one["recall"]) if one["images"] else "-", one["recall"] == best)
                    for one in found
                ],
            }
        )
    return rows
