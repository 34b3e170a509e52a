"""The contents of the page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewit.report.charts import Chart, Intervals, Series, interval_chart, line_chart
from peewit.report.sentences import percent
from peewit.runs.comparison import differences, epochs_text, facts, readings
from peewit.runs.run import Run, names_of
from peewit.system.text import duration

# As many as there are classes for them in style.css
COLOURS, DASHES = 7, 3


def contents(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the values of the template ``compare.html``."""
    names = names_of(runs)
    return {
        "title": f"Comparison of {len(runs)} runs - Peewit",
        "runs": [_row(run, name) for run, name in zip(runs, names, strict=True)],
        "names": names,
        "intervals": _intervals(runs, names),
        "readings": readings(runs),
        "differences": [
            (name, ["-" if value is None else str(value) for value in row])
            for name, row in differences(runs).items()
        ],
        "curves": [_chart(runs, names, key) for key in ("accuracy", "loss")],
        "legend": [(name, *_style(number)) for number, name in enumerate(names)],
        "recalls": _recalls(runs),
    }


def _style(number: int) -> tuple[str, str]:
    colour = number % COLOURS
    return f"s{colour} dash{number // COLOURS % DASHES}", f"f{colour}"


def _row(run: Run, name: str) -> dict[str, str]:
    values = facts(run)
    tested = values["accuracy"] is not None
    low, high = values["accuracy_interval"] or (0.0, 0.0)
    seconds, speed = values["seconds"], values["images_per_second"]
    return {
        "name": name,
        "path": values["run"],
        "status": values["status"],
        "accuracy": f"{values['accuracy']:.2%}" if tested else "-",
        "interval": f"{low:.2%} to {high:.2%}" if tested else "-",
        "split": values["split"] or "-",
        "loss": f"{values['loss']:.4f}" if tested else "-",
        "epochs": epochs_text(run),
        "time": duration(seconds) if seconds is not None else "-",
        "speed": f"{speed:,.0f}" if speed is not None else "-",
        "recipe": values["recipe"] or "-",
        "source": values["source"] or "-",
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
    """Return the recall of each class in each run; empty if the runs have different classes."""
    if not all(run.metrics for run in runs) or len({run.class_names for run in runs}) > 1:
        return []
    rows = []
    for number, name in enumerate(runs[0].class_names):
        scores = [run.metrics["classes"][number] for run in runs]
        best = max(one["recall"] for one in scores)
        rows.append(
            {
                "name": name,
                "recalls": [
                    (percent(one["recall"]) if one["images"] else "-", one["recall"] == best)
                    for one in scores
                ],
            }
        )
    return rows
