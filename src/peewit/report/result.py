"""What the final test came to: the numbers, the confusions, the classes, the confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from peewit.evaluation.metrics import evaluate
from peewit.report import words
from peewit.report.charts import reliability_chart
from peewit.report.evidence import Evidence
from peewit.report.inline import png
from peewit.runs.run import Run

# With more classes the numbers in the cells of the matrix could not be read
NUMBERED_CLASSES = 20
CONFUSIONS = 10


def tested(run: Run, evidence: Evidence | None) -> dict[str, Any]:
    """Return what the template says of a run that has been tested, by name."""
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
        facts["temperature"] = words.temperature(run)
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
