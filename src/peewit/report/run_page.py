"""The contents of a run's report: everything that is known about the run, for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peewit.evaluation.metrics import evaluate
from peewit.models.registry import MODELS
from peewit.report import data_findings, links, pictures, sentences
from peewit.report.charts import Series, line_chart, reliability_chart
from peewit.report.evidence import Evidence, Explanation
from peewit.report.sentences import percent
from peewit.runs import folder as runfolder
from peewit.runs.run import Run

if TYPE_CHECKING:
    from torch import nn

# With more classes the numbers in the cells of the confusion matrix would be too small to read
NUMBERED_CLASSES = 20
CONFUSIONS = 10
# Names that are more than the capitalised key
ENVIRONMENT_NAMES = {"torch": "PyTorch", "numpy": "NumPy", "kernels": "C kernels"}


def contents(
    run: Run,
    model: nn.Module | None,
    evidence: Evidence | None,
    explained: tuple[Sequence[Explanation], Sequence[Explanation]],
    missing: str,
    heat_missing: str,
    page: Path,
) -> dict[str, Any]:
    """Return the values of the template ``run.html``.

    Parameters
    ----------
    run : Run
    model : Module or None
        The trained model; None if there are no weights yet.
    evidence : Evidence or None
    explained : tuple of sequences of Explanation
        Explanations of correct predictions, and of mistakes.
    missing : str
        Why there is no evidence, for the reader.
    heat_missing : str
        Why there are no heat maps although there is evidence.
    page : Path
        The HTML file, from which picture files are linked.
    """
    parameters = None
    if model is not None:
        parameters = sum(one.numel() for one in model.parameters() if one.requires_grad)
    right, wrong = (pictures.explanation_figures(part) for part in explained)
    values: dict[str, Any] = {
        "title": f"{run.path.resolve().name} - Peewit",
        "name": run.path.resolve().name,
        "subtitle": _subtitle(run),
        "metrics": run.metrics,
        "untested": sentences.untested(run),
        "trained": run.status != "imported",
        # the only row of a pretrained network whose last layer was fitted is no curve
        "drawn_curves": run.status != "imported" and [row["epoch"] for row in run.history] != [0],
        "names": run.class_names,
        "recipe": sentences.recipe(run, parameters),
        "cost": sentences.cost(run),
        "loaded": evidence is not None,
        "missing": missing or "the images were not loaded",
        "files": _files(run) if evidence is None else {},
        "data": _data(run),
        "findings": data_findings.contents(run, evidence),
        "environment": _environment(run),
        "command": sentences.command(run),
        "source": run.source,
        "original_command": run.environment.get("command", ""),
        "recipe_yaml": run.recipe.to_yaml(),
        "heat_missing": heat_missing,
        "heat": [("Correct predictions", right), ("Most confident mistakes", wrong)],
        "samples": pictures.sample_figures(evidence) if evidence is not None else [],
    }
    values |= _curves(run.history) | _filters(run, model)
    if run.metrics:
        values |= _test_results(run, evidence)
    if evidence is not None:
        folder = links.pictures_folder(evidence.source or run.source)
        values |= pictures.prediction_figures(evidence, folder, page)
        tables = (run.path / runfolder.MISTAKES_TABLE).is_file() and len(evidence.mistakes)
        values["tables"] = "All mistakes are in mistakes.csv." if tables else ""
    values["sections"] = _sections(values)
    return values


def _subtitle(run: Run) -> str:
    images = run.dataset.get("images", {})
    parts = [
        f"{len(run.class_names)} classes",
        f"{images['training']:,} training images" if images.get("training") else "",
        str(run.dataset.get("origin", "")),
        str(run.environment.get("date", ""))[:16].replace("T", " "),
    ]
    return " · ".join(part for part in parts if part)


def _files(run: Run) -> dict[str, str]:
    """Return the picture files in the run folder as data URIs."""
    names = {
        "mistakes": runfolder.MISTAKES,
        "uncertain": runfolder.UNCERTAIN,
        "heat": runfolder.HEAT_MAPS,
        "samples": runfolder.SAMPLES,
    }
    found = {}
    for key, name in names.items():
        try:
            found[key] = pictures.from_png((run.path / name).read_bytes())
        except OSError:  # older runs have fewer pictures
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
        ("images_per_second", "images/s", ",.0f"),
        ("gflops", "GFLOP/s", ",.0f"),
        ("loss", "loss", ".4f"),
        ("accuracy", "accuracy", ".2%"),
        ("validation_loss", "validation loss", ".4f"),
        ("validation_accuracy", "validation accuracy", ".2%"),
    ]
    present = [column for column in columns if any(column[0] in row for row in history)]
    rows = [
        [format(row[key], form) if key in row else "-" for key, _, form in present]
        for row in history
    ]
    return {"curves": charts, "history": rows, "history_titles": [title for _, title, _ in present]}


def _test_results(run: Run, evidence: Evidence | None) -> dict[str, Any]:
    """Return what the template shows of a final test."""
    metrics, names = run.metrics, run.class_names
    confusion = np.asarray(metrics["confusion"], np.int64)
    totals = confusion.sum(axis=1)
    # A class without images has an empty row: avoid a division by zero
    shares = confusion / np.maximum(totals, 1)[:, None]
    # The square root makes mistakes of 1 % visible next to recalls of 90 %
    levels = np.rint(10 * np.sqrt(shares)).astype(int)
    values: dict[str, Any] = {
        "accuracy": percent(metrics["accuracy"]),
        "headline": sentences.headline(run),
        "cautions": sentences.cautions(run),
        "tiles": _tiles(run, totals),
        "matrix": None,
        "confusions": _confusions(confusion, names),
        "classes": _classes(metrics["classes"]),
        "reliability": None,
    }
    if len(names) <= NUMBERED_CLASSES:
        values["matrix"] = [
            list(zip(counts, row, strict=True))
            for counts, row in zip(confusion.tolist(), levels.tolist(), strict=True)
        ]
    else:
        values["matrix_picture"] = pictures.png(_matrix_picture(shares))
    bins = metrics.get("reliability")
    if not bins and evidence is not None:  # missing in older runs
        bins = evaluate(evidence.logits, evidence.judged.labels, names).to_dict()["reliability"]
    if bins:
        values["reliability"] = reliability_chart(bins)
        values["calibration"] = sentences.calibration(bins)
        values["temperature"] = sentences.temperature(run)
        values["rejection"] = sentences.rejection(run.metrics)
        width = 100 / len(bins)
        values["bins"] = [
            {
                "range": f"{number * width:.0f} to {(number + 1) * width:.0f}%",
                "confidence": percent(part["confidence"]),
                "accuracy": percent(part["accuracy"]),
                "images": f"{part['images']:,}",
            }
            for number, part in enumerate(bins)
            if part["images"]
        ]
    return values


def _tiles(run: Run, totals: Any) -> list[tuple[str, str, str]]:
    metrics = run.metrics
    top = min(3, len(run.class_names))
    tiles = [
        ("Baseline", percent(totals.max() / totals.sum()), "always predict the largest class"),
        ("Loss", f"{metrics['loss']:.3f}", "mean cross-entropy, nats"),
        (
            "Calibration error",
            percent(metrics["calibration_error"]),
            "mean gap between confidence and accuracy",
        ),
    ]
    if top < len(run.class_names):
        about = f"the true class is among the {top} most probable"
        tiles.insert(1, (f"Top-{top} accuracy", percent(metrics["top3"]), about))
    if sentences.imbalanced_result(metrics):
        balanced = percent(metrics["balanced_accuracy"])
        tiles.insert(0, ("Balanced accuracy", balanced, "mean recall of the classes"))
    if "single_view_accuracy" in metrics:
        accuracy = percent(metrics["single_view_accuracy"])
        tiles.append(("Single-view accuracy", accuracy, "without test-time augmentation"))
    return tiles + [one for one in sentences.cost(run) if one[0] in ("Time", "Compute")]


def _confusions(confusion: Any, names: Sequence[str]) -> list[dict[str, str]]:
    totals = confusion.sum(axis=1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    found = []
    for place in order:
        label, predicted = divmod(int(place), len(names))
        count = int(wrong[label, predicted])
        if count:
            found.append(
                {
                    "label": names[label],
                    "predicted": names[predicted],
                    "count": f"{count:,}",
                    "share": percent(count / totals[label]),
                }
            )
    return found


def _matrix_picture(shares: Any) -> Any:
    """Return the confusion matrix as pixels: white for 0, dark for a whole row."""
    strength = np.sqrt(shares)[:, :, None]
    return np.rint(255 - strength * (255 - np.array([20, 78, 120]))).astype(np.uint8)


def _classes(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": one["name"],
            "images": f"{one['images']:,}",
            "precision": percent(one["precision"]) if one["predicted"] else "-",
            "recall": percent(one["recall"]) if one["images"] else "-",
            "f1": percent(one["f1"]) if one["predicted"] or one["images"] else "-",
            "bar": round(100 * one["recall"], 1) if one["images"] else None,
        }
        for one in classes
    ]


def _filters(run: Run, model: nn.Module | None) -> dict[str, Any]:
    filters = pictures.first_filters(model)
    if filters is None:
        return {"filters": ""}
    count, _, height, width = filters.shape
    info = MODELS.get(run.recipe.model)
    if info and info.family == "fast":
        origin = "They are not learned but computed from the training images (whitening)."
    else:
        origin = "Clear edges and colours are a good sign; noise means that little was learned."
    return {
        "filters": pictures.png(pictures.filter_sheet(filters)),
        "filters_text": f"The {count} filters of {height} x {width} pixels of the first layer. "
        "Grey is 0, brighter is positive, darker negative; each filter is scaled to its largest "
        f"weight. {origin}",
        "filters_alt": f"{count} small coloured squares of {height} x {width} pixels",
    }


def _data(run: Run) -> list[tuple[str, str]]:
    images = run.dataset.get("images", {})
    rule = run.preprocessing
    kind = "grey" if rule.channels == 1 else "RGB"
    pairs = [("Source", str(run.dataset.get("origin", "")))]
    pairs += [(part.capitalize(), f"{count:,} images") for part, count in images.items() if count]
    pairs.append(("Model input", f"{rule.width} x {rule.height} pixels, {kind}"))
    pairs.append(("Classes", f"{len(run.class_names)}: {', '.join(run.class_names)}"))
    for part, fingerprint in run.dataset.get("fingerprints", {}).items():
        if fingerprint:
            pairs.append((f"Fingerprint ({part})", fingerprint))
    return [(name, value) for name, value in pairs if value]


def _environment(run: Run) -> list[tuple[str, str]]:
    return [
        (
            ENVIRONMENT_NAMES.get(name, name.replace("_", " ").capitalize()),
            ("yes" if value else "no") if isinstance(value, bool) else str(value),
        )
        for name, value in run.environment.items()
        if name != "command"
    ]


def _sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the anchor and the name of each section that the page has."""
    tested = bool(values["metrics"])
    sections = [
        ("recipe", "Training" if values["trained"] else "Model", True),
        ("curves", "Curves", values["drawn_curves"]),
        ("confusion", "Confusion matrix", tested),
        ("classes", "Classes", tested),
        ("mistakes", "Mistakes", tested),
        ("uncertain", "Uncertain", tested),
        ("reliability", "Calibration", tested),
        ("heat", "Heat maps", tested),
        ("filters", "Filters", bool(values["filters"])),
        ("cost", "Cost", bool(values["cost"])),
        ("data", "Data", True),
        ("environment", "Environment", True),
        ("again", "Reproduce", values["trained"]),
    ]
    return [(anchor, name) for anchor, name, present in sections if present]
