"""A run's report: everything that is known of it, put into words, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peewit import runfolder
from peewit.evaluation import evaluate
from peewit.report import shown, words
from peewit.report.charts import Series, line_chart, reliability_chart
from peewit.report.evidence import Evidence
from peewit.report.explanations import Explanation
from peewit.report.inline import filter_sheet, first_filters, from_png, png
from peewit.run import Run

if TYPE_CHECKING:
    from torch import nn

# With more classes the numbers in the cells of the matrix could not be read
NUMBERED_CLASSES = 20
CONFUSIONS = 10


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
        "untested": f"This run is {run.status} after {words.epochs(run)} of {run.recipe.epochs} "
        "epochs: it has not been tested yet.",
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
        facts |= _result(run, evidence)
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


def _result(run: Run, evidence: Evidence | None) -> dict[str, Any]:
    """Return what the template says of the final test."""
    metrics, names = run.metrics, run.class_names
    confusion = np.asarray(metrics["confusion"], np.int64)
    totals = confusion.sum(axis=1)
    # a class without images has an empty row, not a division by zero
    shares = confusion / np.maximum(totals, 1)[:, None]
    # the square root makes mistakes of 1 % visible beside hits of 90 %
    levels = np.rint(10 * np.sqrt(shares)).astype(int)
    facts: dict[str, Any] = {
        "accuracy": words.share(metrics["accuracy"]),
        "headline": words.headline(run),
        "cautions": words.cautions(run),
        "tiles": _tiles(run, totals),
        "matrix": None,
        "confusions": _confusions(confusion, names),
        "classes": _classes(metrics["classes"]),
        "reliability": None,
    }
    if len(names) <= NUMBERED_CLASSES:
        facts["matrix"] = [
            list(zip(counts, row, strict=True))
            for counts, row in zip(confusion.tolist(), levels.tolist(), strict=True)
        ]
    else:
        facts["matrix_picture"] = png(_matrix_picture(shares))
    bins = metrics.get("reliability")
    if not bins and evidence is not None:  # an older run did not keep it
        bins = evaluate(evidence.logits, evidence.judged.labels, names).to_dict()["reliability"]
    if bins:
        facts["reliability"] = reliability_chart(bins)
        facts["calibration"] = words.calibration(bins)
        width = 100 / len(bins)
        facts["bins"] = [
            {
                "range": f"{number * width:.0f} to {(number + 1) * width:.0f}%",
                "confidence": words.share(part["confidence"]),
                "accuracy": words.share(part["accuracy"]),
                "images": f"{part['images']:,}",
            }
            for number, part in enumerate(bins)
            if part["images"]
        ]
    return facts


def _tiles(run: Run, totals: Any) -> list[tuple[str, str, str]]:
    metrics = run.metrics
    top = min(3, len(run.class_names))
    tiles = [
        ("By guessing", words.share(totals.max() / totals.sum()), "always the most frequent class"),
        ("Loss", f"{metrics['loss']:.3f}", "mean cross-entropy, nats"),
        ("Calibration error", words.share(metrics["calibration_error"]), "confidence to accuracy"),
    ]
    if top < len(run.class_names):
        about = f"the right class is among the {top} likeliest"
        tiles.insert(1, (f"Top {top}", words.share(metrics["top3"]), about))
    if "single_view_accuracy" in metrics:
        plain = words.share(metrics["single_view_accuracy"])
        tiles.append(("Without second looks", plain, "each picture looked at once"))
    return tiles + [one for one in words.cost(run) if one[0] in ("Time", "Work")]


def _confusions(confusion: Any, names: Sequence[str]) -> list[dict[str, str]]:
    totals = confusion.sum(axis=1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    found = []
    for place in order:
        truth, answer = divmod(int(place), len(names))
        count = int(wrong[truth, answer])
        if count:
            found.append(
                {
                    "truth": names[truth],
                    "answer": names[answer],
                    "count": f"{count:,}",
                    "share": words.share(count / totals[truth]),
                }
            )
    return found


def _matrix_picture(shares: Any) -> Any:
    """Return the confusion matrix as pixels: white is nothing, dark is the whole row."""
    strength = np.sqrt(shares)[:, :, None]
    return np.rint(255 - strength * (255 - np.array([20, 78, 120]))).astype(np.uint8)


def _classes(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": one["name"],
            "images": f"{one['images']:,}",
            "precision": words.share(one["precision"]) if one["predicted"] else "-",
            "recall": words.share(one["recall"]) if one["images"] else "-",
            "f1": words.share(one["f1"]) if one["predicted"] or one["images"] else "-",
            "bar": round(100 * one["recall"], 1) if one["images"] else None,
        }
        for one in classes
    ]


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
        ("curves", "Curves", True),
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
        ("again", "Again", True),
    ]
    return [(anchor, text) for anchor, text, there in every if there]
