from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference

from peewit.errors import PeewitError
from peewit.evaluation.metrics import evaluate, wilson_interval
from peewit.evaluation.reliability import calibration_error


def random_outputs(
    count: int, classes: int, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1
    return logits, labels, [f"class {number}" for number in range(classes)]


@pytest.mark.parametrize(("count", "classes"), [(500, 2), (500, 3), (1000, 10), (300, 100), (1, 4)])
@pytest.mark.filterwarnings("ignore:.*:sklearn.exceptions.UndefinedMetricWarning")
def test_all_metrics_equal_scikit_learns(count: int, classes: int) -> None:
    logits, labels, names = random_outputs(count, classes)
    result = evaluate(logits, labels, names)
    predicted = logits.argmax(axis=1)
    every = np.arange(classes)
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)

    assert result.images == count
    assert result.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    balanced = reference.balanced_accuracy_score(labels, predicted)
    assert result.balanced_accuracy == pytest.approx(balanced)
    assert result.loss == pytest.approx(reference.log_loss(labels, probabilities, labels=every))
    if classes > 3:
        top3 = reference.top_k_accuracy_score(labels, logits, k=3, labels=every)
        assert result.top3 == pytest.approx(top3)
    confusion = reference.confusion_matrix(labels, predicted, labels=every)
    assert result.confusion.dtype == np.int64
    assert (result.confusion == confusion).all()
    precision, recall, f1, images = reference.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    assert [scores.name for scores in result.per_class] == names
    assert [scores.precision for scores in result.per_class] == pytest.approx(precision)
    assert [scores.recall for scores in result.per_class] == pytest.approx(recall)
    assert [scores.f1 for scores in result.per_class] == pytest.approx(f1)
    assert [scores.images for scores in result.per_class] == list(images)


def test_top_3_of_two_classes_is_1() -> None:
    logits, labels, names = random_outputs(50, 2)
    result = evaluate(logits, labels, names)
    assert result.top3 == 1
    assert "top-2" in result.table()


def test_the_first_of_equal_values_is_predicted() -> None:
    result = evaluate(np.zeros((5, 5)), np.arange(5), list("abcde"))
    assert result.accuracy == 0.2
    assert result.top3 == 0.6
    assert result.loss == pytest.approx(math.log(5))


def test_huge_logits_do_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        result = evaluate([[3e38, -3e38], [-3e38, 3e38]], [0, 0], ["a", "b"])
    assert result.loss == pytest.approx(3e38)
    assert result.calibration_error == 0.5


def test_classes_without_images_or_predictions() -> None:
    # c has images but no predictions, d has predictions but no images, e has neither
    logits = np.eye(5)[[0, 1, 3, 3]] * 9
    result = evaluate(logits, [0, 1, 2, 2], list("abcde"))
    no_predictions, no_images, neither = result.per_class[2:]
    assert (no_predictions.precision, no_predictions.recall, no_predictions.f1) == (0, 0, 0)
    assert (no_images.precision, no_images.recall, no_images.images) == (0, 0, 0)
    rows = {line.split()[0]: line.split()[1:] for line in result.table().splitlines() if line}
    assert rows["c"] == ["-", "0.0%", "0.0%", "2"]
    assert rows["d"] == ["0.0%", "-", "0.0%", "0"]
    assert rows["e"] == ["-", "-", "-", "0"]
    assert neither.f1 == 0


@pytest.mark.parametrize(
    ("hits", "count", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_equals_published_values(
    hits: int, count: int, interval: tuple[float, float]
) -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
    assert wilson_interval(hits, count) == pytest.approx(interval, abs=5.1e-5)


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (1, 1), (7109, 10000), (3, 40)])
def test_wilson_bounds_satisfy_their_definition(hits: int, count: int) -> None:
    for bound in wilson_interval(hits, count):
        distance = abs(hits / count - bound)
        assert distance == pytest.approx(
            1.959964 * math.sqrt(bound * (1 - bound) / count), abs=1e-7
        )


def test_wilson_interval_covers_the_truth_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    for truth in (0.5, 0.74, 0.97):
        intervals = [
            wilson_interval(int(hits), 1000) for hits in random.binomial(1000, truth, 4000)
        ]
        covered = np.mean([low <= truth <= high for low, high in intervals])
        assert 0.935 < covered < 0.965


def guo(confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """Equation 3 of Guo et al., bin by bin, as printed."""
    error = 0.0
    for m in range(1, 16):
        members = (confidences > (m - 1) / 15) & (confidences <= m / 15)
        if members.any():
            gap = abs(right[members].mean() - confidences[members].mean())
            error += members.sum() / len(confidences) * gap
    return float(error)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_equals_equation_3(seed: int) -> None:
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.1, 1, 2000)
    confidences[:3] = 1
    right = random.random(2000) < confidences**2
    assert calibration_error(confidences, right) == pytest.approx(guo(confidences, right))


def test_calibration_bins_include_their_upper_edge() -> None:
    # 0.2 is 3 / 15 and belongs to the lower bin, so the two values are in different bins
    error = calibration_error(np.array([0.2, 0.25]), np.array([True, False]))
    assert error == pytest.approx((0.8 + 0.25) / 2)


def test_reliability_diagram_sums_to_the_calibration_error() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 500)
    result = evaluate(random.normal(size=(500, 4)) * 3, labels, list("abcd"))
    assert sum(part.images for part in result.reliability) == 500
    gaps = [part.images * abs(part.accuracy - part.confidence) for part in result.reliability]
    assert sum(gaps) / 500 == pytest.approx(result.calibration_error)
    # with four classes the confidence is at least 1/4, so the first three bins are empty
    assert [part.images for part in result.reliability[:3]] == [0, 0, 0]
    for number, part in enumerate(result.reliability[3:], 3):
        assert not part.images or number / 15 < part.confidence <= (number + 1) / 15


def test_a_calibrated_classifier_has_a_small_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidences = random.uniform(0.1, 1, 100_000)
    assert calibration_error(confidences, random.random(100_000) < confidences) < 0.01
    assert calibration_error(np.ones(10), np.ones(10, bool)) == 0


def test_to_dict_can_be_written_as_json() -> None:
    logits, labels, names = random_outputs(100, 3)
    result = evaluate(logits, labels, names)
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["accuracy"] == result.accuracy
    assert written["loss"] == result.loss
    assert written["images"] == 100
    assert written["accuracy_interval"] == list(result.accuracy_interval)
    assert np.array(written["confusion"]).sum() == 100
    assert [row["name"] for row in written["classes"]] == names


def test_table_contains_all_metrics_and_fits_a_terminal() -> None:
    logits, labels, names = random_outputs(1234, 10)
    text = evaluate(logits, labels, names).table()
    for word in ("accuracy", "95% interval", "top-3", "loss", "calibration", "1,234", *names):
        assert word in text
    assert max(map(len, text.splitlines())) < 80


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    logits, labels, names = random_outputs(10, 3)
    logits[[4, 7], 1] = value
    with pytest.raises(PeewitError, match=r"2 of 10 images .*not finite"):
        evaluate(logits, labels, names)


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "there are no images"),
        (np.zeros((3, 3)), np.zeros(3, int), r"\(3, 3\)"),
        (np.zeros(3), np.zeros(3, int), r"\(3,\)"),
        (np.zeros((3, 2)), np.zeros(4, int), r"\(4,\)"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "from 0 to 1"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), "from 0 to 1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), "integers"),
    ],
)
def test_invalid_inputs_are_refused(logits: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(PeewitError, match=sentence):
        evaluate(logits, labels, ["no", "yes"])
