"""A run's report: everything that is known of it, put into words, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peewit.report import result, shown, words
from peewit.report.charts import Series, line_chart
from peewit.report.evidence import Evidence
from peewit.report.explanations import Explanation
from peewit.report.inline import filter_sheet, first_filters, from_png, png
from peewit.runs import folder as runfolder
from peewit.runs.run import Run

if TYPE_CHECKING:
    from torch import nn


def contents(
    run: Run,
    model: nn.Module | None,
    evidence: Evidence | None,
    explained: tuple[Sequence[Explanation], Sequence[Explanation]],
    missing: str,
    heat_missing: str,
) -> dict[str, Any]:
    """Return what the template says, by name.

    Parameters
    ----------
    run : Run
    model : Module or None
        The trained network; None where there are no weights yet.
    evidence : Evidence or None
    explained : tuple of sequences of Explanation
        Right answers, and wrong ones.
    missing : str
        Why there is no evidence, for the reader.
    heat_missing : str
        Why there are no heat maps, if there is evidence and there are none.
    """
    parameters = None
    if model is not None:
        parameters = sum(one.numel() for one in model.parameters() if one.requires_grad)
    right, wrong = (shown.explained(part) for part in explained)
    facts: dict[str, Any] = {
        "title": f"{run.path.resolve().name} - Peewit",
        "name": run.path.resolve().name,
        "subtitle": _subtitle(run),
        "metrics": run.metrics,
        "untested": words.untested(run),
        "own": run.status != "imported",
        "names": run.class_names,
        "recipe": words.recipe(run, parameters),
        "cost": words.cost(run),
        "seen": evidence is not None,
        "missing": missing or "the pictures were not at hand",
        "files": _files(run) if evidence is None else {},
        "data": _data(run),
        "environment": _environment(run),
        "command": words.command(run),
        "source": run.source,
        "started": run.environment.get("command", ""),
        "recipe_yaml": run.recipe.to_yaml(),
        "heat_missing": heat_missing,
        "heat": [("Right answers", right), ("Wrong answers, the most confident", wrong)],
        "samples": shown.samples(evidence) if evidence is not None else [],
    }
    facts |= _curves(run.history) | _filters(model)
    if run.metrics:
        facts |= result.tested(run, evidence)
    if evidence is not None:
        facts |= shown.answers(evidence)
    facts["sections"] = _sections(facts)
    return facts


def _subtitle(run: Run) -> str:
    images = run.dataset.get("images", {})
    parts = [
        f"{len(run.class_names)} classes",
        f"{images['training']:,} training pictures" if images.get("training") else "",
        str(run.dataset.get("origin", "")),
        str(run.environment.get("date", ""))[:16].replace("T", " "),
    ]
    return " · ".join(part for part in parts if part)


def _files(run: Run) -> dict[str, str]:
    """Return the pictures that the training left in the run's folder."""
    names = {
        "mistakes": runfolder.MISTAKES,
        "uncertain": runfolder.UNCERTAIN,
        "heat": runfolder.HEAT_MAPS,
        "samples": runfolder.SAMPLES,
    }
    found = {}
    for key, name in names.items():
        try:
            found[key] = from_png((run.path / name).read_bytes())
        except OSError:  # an older run has fewer pictures
            found[key] = ""
    return found


def _curves(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    charts = []
    for key, title in (("accuracy", "Accuracy"), ("loss", "Loss")):
        series = [
            Series(name, [(row["epoch"], row[column]) for row in history if column in row], *style)
            for name, column, style in (
                ("training", key, ("s-training", "f-training")),
                ("validation", f"validation_{key}", ("s-validation", "f-validation")),
            )
        ]
        charts.append(line_chart(title, series, percent=key == "accuracy"))
    columns: list[tuple[str, str, str]] = [
        ("epoch", "epoch", ",.0f"),
        ("seconds", "seconds", ",.1f"),
        ("images_per_second", "pictures/s", ",.0f"),
        ("gflops", "GFLOP/s", ",.0f"),
        ("loss", "loss", ".4f"),
        ("accuracy", "accuracy", ".2%"),
        ("validation_loss", "validation loss", ".4f"),
        ("validation_accuracy", "validation accuracy", ".2%"),
    ]
    there = [column for column in columns if any(column[0] in row for row in history)]
    rows = [
        [format(row[key], form) if key in row else "-" for key, _, form in there] for row in history
    ]
    return {"curves": charts, "history": rows, "history_titles": [title for _, title, _ in there]}


def _filters(model: nn.Module | None) -> dict[str, Any]:
    values = first_filters(model)
    if values is None:
        return {"filters": ""}
    count, _, height, width = values.shape
    return {
        "filters": png(filter_sheet(values, columns=16 if count > 24 else 8)),
        "filters_text": f"The {count} filters of {height} x {width} pixels that the first layer "
        "lays over every place of a picture. Grey counts for nothing, brighter for, darker "
        "against; each is scaled to its own strongest weight. Neat edges and colours are a "
        "good sign, noise says that it has hardly learned.",
        "filters_alt": f"{count} small coloured squares, each of {height} x {width} pixels",
    }


def _data(run: Run) -> list[tuple[str, str]]:
    images = run.dataset.get("images", {})
    rule = run.preprocessing
    kind = "grey" if rule.channels == 1 else "RGB"
    pairs = [("From", str(run.dataset.get("origin", "")))]
    pairs += [(part.capitalize(), f"{count:,} pictures") for part, count in images.items() if count]
    pairs.append(("As it reads them", f"{rule.width} x {rule.height} pixels, {kind}"))
    pairs.append(("Classes", f"{len(run.class_names)}: {', '.join(run.class_names)}"))
    for part, print_ in run.dataset.get("fingerprints", {}).items():
        if print_:
            pairs.append((f"Fingerprint, {part}", print_))
    return [(name, value) for name, value in pairs if value]


def _environment(run: Run) -> list[tuple[str, str]]:
    said = {True: "yes", False: "no"}
    return [
        (
            name.replace("_", " ").capitalize(),
            said.get(value, str(value)) if isinstance(value, bool) else str(value),
        )
        for name, value in run.environment.items()
        if name != "command"
    ]


def _sections(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    tested = bool(facts["metrics"])
    every = [
        ("recipe", "Recipe", True),
        ("curves", "Curves", facts["own"]),
        ("confusion", "Confusions", tested),
        ("classes", "Classes", tested),
        ("mistakes", "Mistakes", tested),
        ("uncertain", "Unsure", tested),
        ("reliability", "Confidence", tested),
        ("heat", "Heat maps", tested),
        ("filters", "Filters", bool(facts["filters"])),
        ("cost", "Cost", bool(facts["cost"])),
        ("data", "Data", True),
        ("environment", "Machine", True),
        ("again", "Again", facts["own"]),
    ]
    return [(anchor, text) for anchor, text, there in every if there]
