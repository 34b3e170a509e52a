"""The metrics of a classifier: every reported number is computed here.

From logits and labels with NumPy alone, so that the outputs of any engine can be evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.reliability import ConfidenceBin, calibration_error, reliability

# The 97.5 % quantile of the normal distribution
NORMAL = 1.959963984540054


@dataclass(frozen=True)
class ClassScores:
    """The metrics of one class.

    A ratio whose denominator is 0 (no predictions of the class, or no images) is 0, as with
    scikit-learn's ``zero_division=0``; the table shows it as ``-``.
    """

    name: str
    images: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics on a set of labelled images, computed by :func:`evaluate`.

    Attributes
    ----------
    images : int
        The number of images.
    accuracy : float
        Share of correct predictions, 0 to 1.
    accuracy_interval : tuple of float
        95% confidence interval of the accuracy (Wilson).
    balanced_accuracy : float
        Mean recall of the classes that have images, 0 to 1: each class counts equally, however many
        images it has.
    loss : float
        Mean cross-entropy in nats.
    top3 : float
        Top-3 accuracy, 0 to 1: the share whose true class is among the three most probable (or
        among all, if there are fewer).
    calibration_error : float
        Expected calibration error (ECE) with 15 bins, 0 to 1.
    reliability : tuple of ConfidenceBin
        The reliability diagram: 15 confidence bins of equal width from 0 to 1.
    per_class : tuple of ClassScores
        One per class, in the order of the classes.
    confusion : int64 array, shape (classes, classes)
        Confusion matrix: ``confusion[true, predicted]`` images.
    """

    images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    loss: float
    top3: float
    calibration_error: float
    reliability: tuple[ConfidenceBin, ...] = field(repr=False)
    per_class: tuple[ClassScores, ...]
    confusion: npt.NDArray[np.int64] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics in a dict that can be written as JSON."""
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "images": self.images,
            "top3": self.top3,
            "calibration_error": self.calibration_error,
            "reliability": [asdict(part) for part in self.reliability],
            "classes": [asdict(scores) for scores in self.per_class],
            "confusion": self.confusion.tolist(),
        }

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table in a notebook; called by IPython."""
        printer.text(self.table())

    def table(self) -> str:
        """Return the metrics as a table, about 60 characters wide."""
        # imported here, because only the table needs rich
        from peewit.system.terminal import text_table

        low, high = self.accuracy_interval
        top = min(3, len(self.per_class))
        facts = [
            ["accuracy", f"{self.accuracy:.2%}", f"95% interval {low:.2%} to {high:.2%}"],
            ["balanced", f"{self.balanced_accuracy:.2%}", "mean recall of the classes"],
            [f"top-{top}", f"{self.top3:.2%}", f"true class among the {top} most probable"],
            ["loss", f"{self.loss:.4f}", "mean cross-entropy in nats"],
            ["calibration", f"{self.calibration_error:.2%}", "expected calibration error"],
            ["images", f"{self.images:,}", ""],
        ]
        classes = [
            [
                scores.name,
                f"{scores.precision:.1%}" if scores.predicted else "-",
                f"{scores.recall:.1%}" if scores.images else "-",
                f"{scores.f1:.1%}" if scores.predicted or scores.images else "-",
                f"{scores.images:,}",
            ]
            for scores in self.per_class
        ]
        header = ["class", "precision", "recall", "F1", "images"]
        return text_table([], facts, "lrl") + "\n\n" + text_table(header, classes, "lrrrr")


def evaluate(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str],
    groups: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """Compute the metrics of a classifier's outputs.

    Parameters
    ----------
    logits : float array, shape (N, classes)
        Unnormalised log-probabilities. The prediction is the largest, the first of equal values.
    labels : int array, shape (N,)
        The true classes.
    class_names : sequence of str
        One name per class.
    groups : int64 array, shape (N,), optional
        Images with the same number are not independent of each other, such as those of one person:
        they make the interval of the accuracy wider.

    Returns
    -------
    Evaluation

    Raises
    ------
    PeewitError
        There are no images, shapes or labels do not match, or a logit is not finite.

    Examples
    --------
    >>> result = evaluate([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1], ["cat", "dog"])
    >>> round(result.accuracy, 3), result.confusion.tolist()
    (0.667, [[1, 0], [1, 1]])
    """
    # float64: float32 sums over 10,000 images lose digits that scikit-learn keeps
    scores = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(labels)
    _check(scores, truth, len(class_names))
    truth = truth.astype(np.int64)
    count, classes = scores.shape

    log_probabilities = log_softmax(scores)
    predicted = scores.argmax(axis=1)
    correct = predicted == truth
    # stable: the first of equal values comes first, as in argmax
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    confusion = np.bincount(truth * classes + predicted, minlength=classes**2)
    confusion = confusion.reshape(classes, classes).astype(np.int64)
    hits = int(correct.sum())
    confidences = np.exp(log_probabilities.max(axis=1))
    per_class = _per_class(confusion, class_names)
    return Evaluation(
        images=count,
        accuracy=hits / count,
        accuracy_interval=accuracy_interval(correct, groups),
        balanced_accuracy=float(np.mean([one.recall for one in per_class if one.images])),
        loss=float(-log_probabilities[np.arange(count), truth].mean()),
        top3=float((best == truth[:, None]).any(axis=1).mean()),
        calibration_error=calibration_error(confidences, correct),
        reliability=reliability(confidences, correct),
        per_class=per_class,
        confusion=confusion,
    )


def imbalance(counts: npt.ArrayLike) -> float:
    """Return the ratio of the largest class to the smallest one that has images; at least 1.

    >>> imbalance([30, 0, 10])
    3.0
    """
    present = np.asarray(counts)
    present = present[present > 0]
    return float(present.max() / present.min()) if len(present) else 1.0


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log-probabilities, shape (N, classes), without overflow.

    >>> np.exp(log_softmax(np.array([[1000.0, 1000.0]]))).tolist()
    [[0.5, 0.5]]
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def accuracy_interval(
    correct: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy.

    Without groups it is the Wilson interval. Images of one group tend to be right or wrong
    together, so the Wilson interval is computed for the effective number of images: their number
    divided by the design effect, which is the ratio of the variance between groups to that of
    independent images, with Student's t for few groups. Source: E. L. Korn and B. I. Graubard,
    "Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated
    from Survey Data", Survey Methodology 24 (1998), 193-201; with Wilson's interval: N. Dean and
    M. Pagano, "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered
    Surveys", J. Survey Statistics and Methodology 3 (2015), 484-503.

    Pooled out-of-fold predictions are treated in the same way: the interval is valid for the mean
    accuracy of the networks of the folds (P. Bayle et al., "Cross-validation Confidence Intervals
    for Test Error", NeurIPS 2020, arXiv 2007.12671).

    Parameters
    ----------
    correct : bool array, shape (N,)
    groups : int64 array, shape (N,), optional

    Examples
    --------
    >>> hits = np.array([True] * 30 + [False] * 10)
    >>> [round(bound, 2) for bound in accuracy_interval(hits)]
    [0.6, 0.86]
    >>> [round(bound, 2) for bound in accuracy_interval(hits, np.arange(40) // 10)]
    [0.13, 0.98]
    """
    count, hits = len(correct), int(correct.sum())
    if groups is None:
        return wilson_interval(hits, count)
    number = np.unique(groups, return_inverse=True)[1]
    clusters = int(number.max()) + 1
    if clusters == count:
        return wilson_interval(hits, count)
    share = hits / count
    # without an error, or with one group, it is unknown how alike the images of a group are: as if
    # each group was one image
    effective, quantile = float(clusters), NORMAL
    if 0 < hits < count and clusters > 1:
        quantile = _student(clusters - 1)
        excess = np.bincount(number, correct - share)
        variance = clusters / (clusters - 1) * float((excess**2).sum()) / count**2
        effective = min(float(count), share * (1 - share) / max(variance, 1e-300))
    return wilson_interval(share * effective, effective, quantile)


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, to 1 % from 3 degrees of freedom on.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.

    >>> round(_student(4), 2), round(_student(20), 3)
    (2.77, 2.086)
    """
    z = NORMAL
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def wilson_interval(hits: float, count: float, z: float = NORMAL) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion; z is the normal quantile, here of 95%.

    Unlike the normal approximation p +- z s, it stays within 0 to 1 and does not collapse to a
    point at 0 or 100 %. Source: E. B. Wilson, "Probable Inference, the Law of Succession, and
    Statistical Inference", JASA 22 (1927), 209-212.

    >>> [round(bound, 4) for bound in wilson_interval(7109, 10000)]
    [0.7019, 0.7197]
    >>> [round(bound, 4) for bound in wilson_interval(10, 10)]
    [0.7225, 1.0]
    """
    share = hits / count
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # with no hits or all hits the bound is exact; rounding would be off by 1e-17
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == count else middle + half)


def _check(scores: npt.NDArray[np.float64], truth: npt.NDArray[Any], classes: int) -> None:
    what = "cannot evaluate these outputs"
    if scores.ndim != 2 or scores.shape[1] != classes or truth.shape != scores.shape[:1]:
        raise PeewitError(
            what,
            f"outputs have shape {scores.shape} and labels {truth.shape}, for {classes} classes",
            "pass outputs (N, classes) and labels (N,)",
        )
    if not len(scores):
        raise PeewitError(what, "there are no images", "pass at least one")
    if truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= classes:
        raise PeewitError(
            what, f"the labels are not integers from 0 to {classes - 1}", "check the data"
        )
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        raise PeewitError(
            what,
            f"{int(broken.sum()):,} of {len(scores):,} images have outputs that are not finite",
            "the training has diverged, train again with a lower learning rate",
        )


def _per_class(
    confusion: npt.NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ClassScores, ...]:
    rows = []
    for index, name in enumerate(class_names):
        hits = int(confusion[index, index])
        present = int(confusion[index].sum())
        predicted = int(confusion[:, index].sum())
        rows.append(
            ClassScores(
                name=str(name),
                images=present,
                predicted=predicted,
                precision=_ratio(hits, predicted),
                recall=_ratio(hits, present),
                f1=_ratio(2 * hits, present + predicted),
            )
        )
    return tuple(rows)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
