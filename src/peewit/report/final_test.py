"""The final test: calibration, logits, metrics, pictures and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit import plots, report
from peewit.data.dataset import Dataset
from peewit.data.duplicates import copies_in
from peewit.data.packing import sized_for
from peewit.evaluation.inference import (
    augment_uncertain,
    confidence_threshold,
    forward_of,
    softmax,
)
from peewit.evaluation.metrics import Evaluation, accuracy_interval, evaluate
from peewit.evaluation.temperature import FEWEST, Calibration, calibrate, fold
from peewit.report.prediction_tables import write_prediction_tables
from peewit.report.sentences import copies_sentence
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.runs.tested import find_tested
from peewit.training.callbacks import CallbackList
from peewit.training.loop import TrainSetup
from peewit.training.state import TrainState

# Indices of copies of training images in metrics.json
COPIES_KEPT = 20

Logits = npt.NDArray[np.float32]


class FinalLogits(NamedTuple):
    """The logits of a trained model in the final test.

    Parameters
    ----------
    logits : float32 array, shape (N, classes)
        With test-time augmentation, if it was used.
    single : float32 array, shape (N, classes)
        Those of one view of each image.
    threshold : float
        The confidence below which test-time augmentation was used; 0 if it was not.
    calibration : Calibration or None
        How the model was calibrated, if it was.
    estimated_from : int
        The number of training images from which batch normalisation's statistics were estimated;
        0 if the moving statistics were kept.
    held_out : float32 array, shape (M, classes), or None
        The logits of the validation images, computed in the same way; None if the run validates on
        the test set.
    """

    logits: Logits
    single: Logits
    threshold: float
    calibration: Calibration | None
    estimated_from: int = 0
    held_out: Logits | None = None


def final_logits(
    setup: TrainSetup,
    data: Dataset,
    callbacks: CallbackList,
    decide_augmentation: Callable[[float], bool] = lambda seconds: True,
) -> FinalLogits:
    """Finish the trained model, and return its logits for ``data``.

    After few steps, batch normalisation's statistics are estimated; if the recipe says so, the
    model is calibrated, which changes the last layer. It must not be trained further afterwards.

    Parameters
    ----------
    setup : TrainSetup
    data : Dataset
        The test images, or the validation images if there is no test set.
    callbacks : CallbackList
        Receive a note if the model is not calibrated; asked after each batch whether to stop.
    decide_augmentation : callable
        Called with the seconds that the plain test took; returns whether there is time for
        test-time augmentation.

    Raises
    ------
    StopTraining
        A callback asked to stop.
    """

    estimated_from = estimate_statistics(setup, callbacks)
    began = time.perf_counter()
    rule, recipe, validation = setup.preprocessing, setup.recipe, setup.validation
    validated, calibration = None, None
    if recipe.calibrate and _can_calibrate(setup, callbacks.note):
        validated = setup.logits(validation, callbacks.check_stop)
        calibration = calibrate(validated, validation.labels)
        if calibration is None:
            callbacks.note("the confidence is not calibrated: the network is no better than chance")
        else:
            fold(setup.model, calibration.temperature)
            validated /= np.float32(calibration.temperature)
    known = validated if data is validation else None
    single = setup.logits(data, callbacks.check_stop) if known is None else known
    augmented = recipe.tta and decide_augmentation(time.perf_counter() - began)
    apart = recipe.validate_on == "holdout"
    # thresholds come from images that were not trained on and, if possible, are not tested on
    if validated is None and (augmented or apart):
        validated = single if data is validation else setup.logits(validation, callbacks.check_stop)
    if validated is None or not augmented:
        held_out = validated if apart else None
        return FinalLogits(single, single, 0.0, calibration, estimated_from, held_out)
    threshold = confidence_threshold(validated)

    def augment(part: Dataset, logits: Logits) -> Logits:
        return augment_uncertain(
            forward_of(setup.model),
            lambda chosen: rule.tensor(part.images[chosen]).permute(0, 2, 3, 1).numpy(),
            *(logits, threshold),
            mirror=recipe.flip != "none",
            before_batch=callbacks.check_stop,
        )

    logits = held_out = augment(data, single)
    if data is not validation:
        held_out = augment(validation, validated) if apart else None
    return FinalLogits(
        *(logits, single, threshold, calibration, estimated_from),
        held_out=held_out if apart else None,
    )


def estimate_statistics(setup: TrainSetup, callbacks: CallbackList) -> int:
    """Estimate batch normalisation's statistics if there were too few steps for moving ones.

    Returns
    -------
    int
        The number of images they were estimated from; 0 if the moving statistics were kept.
    """
    if not setup.needs_statistics:
        return 0
    images = setup.estimate_statistics(callbacks.check_stop)
    callbacks.note(
        "too few training steps for batch normalisation's moving statistics: they were estimated "
        f"from {images:,} training images (batch_norm_statistics: moving keeps those of Keras)"
    )
    return images


def _can_calibrate(setup: TrainSetup, note: Callable[[str], None]) -> bool:
    """Return whether there are held-out images to calibrate on; note the reason if not."""
    count = len(setup.validation)
    if setup.recipe.validate_on == "test":
        note("the confidence is not calibrated: calibration on the test set would bias the test")
    elif count < FEWEST:
        images = "image" if count == 1 else "images"
        note(
            f"the confidence is not calibrated: only {count} held-out {images}, at least {FEWEST} "
            "are needed"
        )
    else:
        return True
    return False


def training_costs(state: TrainState) -> dict[str, float]:
    """Return the costs of the training: images, operations, seconds of its steps, and the rate.

    ``share_of_best``, the ratio to the machine's best measured rate, is included if that was
    measured.

    Examples
    --------
    >>> rows = [{"images": 10, "flops": 6e9, "gflops": 2.0, "share_of_best": 0.5},
    ...         {"images": 20, "flops": 12e9, "gflops": 6.0, "share_of_best": 0.75}]
    >>> costs = training_costs(TrainState(history=rows))
    >>> costs["training_seconds"], costs["gflops"], costs["share_of_best"]
    (4.0, 3.0, 0.5625)
    """
    rows = [row for row in state.history if row.get("gflops")]
    if not rows:
        return {}
    before = [0.0, *(row["flops"] for row in rows[:-1])]
    works = [row["flops"] - done for row, done in zip(rows, before, strict=True)]
    seconds = sum(work / row["gflops"] for row, work in zip(rows, works, strict=True)) / 1e9
    last = rows[-1]
    costs = {
        "training_images": last["images"],
        "flops": last["flops"],
        "training_seconds": seconds,
        "gflops": last["flops"] / seconds / 1e9,
    }
    # how long the training would have taken at the best rate measured at the time
    best = [
        work / row["gflops"] * row["share_of_best"]
        for row, work in zip(rows, works, strict=True)
        if "share_of_best" in row
    ]
    if len(best) == len(rows):
        costs["share_of_best"] = sum(best) / 1e9 / seconds
    return costs


def write_result(
    path: Path,
    data: Dataset,
    logits: Logits,
    split: str,
    more: Mapping[str, Any],
    *,
    drawn: bool = True,
) -> Evaluation:
    """Write ``metrics.json``, tables of the predictions, and pictures of them.

    Parameters
    ----------
    path : Path
        The run folder.
    data : Dataset
        The images of the test.
    logits : float32 array, shape (N, classes)
    split : str
        "test", "validation" or "cross-validation".
    more : mapping
        Additional metrics.
    drawn : bool
        Whether to draw the pictures.
    """
    evaluation = evaluate(logits, data.labels, data.class_names, data.groups)
    probabilities = softmax(logits)
    write_prediction_tables(path, data, probabilities, split)
    if drawn:
        plots.save_confusion(path / runfolder.CONFUSION, evaluation)
        mistakes = path / runfolder.MISTAKES
        plots.save_mistakes(mistakes, data.images, data.labels, probabilities, data.class_names)
    runfolder.write_metrics(path, {"split": split, **evaluation.to_dict(), **more})
    return evaluation


def without_copies(
    logits: Logits,
    data: Dataset,
    split: str,
    copies: Sequence[int],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Return the metric ``also_in_training``, and note it; empty if there are no copies.

    It is a dict with the number of copies, the indices of the first of them, and the accuracy
    without them, which is None if all images are copies.

    Parameters
    ----------
    logits : float32 array, shape (N, classes)
    data : Dataset
        The images of the test.
    split : str
        "test" or "validation".
    copies : sequence of int
        Indices of the images that are also training images.
    note : callable
    """
    if not len(copies):
        return {}
    kept = np.delete(logits.argmax(axis=1) == data.labels, copies)
    found: dict[str, Any] = {
        "images": len(copies),
        "indices": [int(index) for index in copies[:COPIES_KEPT]],
        "accuracy_without": float(kept.mean()) if len(kept) else None,
    }
    if len(kept):
        groups = None if data.groups is None else np.delete(data.groups, copies)
        found["interval_without"] = list(accuracy_interval(kept, groups))
    if data.names is not None:
        found["names"] = [data.names[index] for index in copies[:COPIES_KEPT]]
    if data.groups is not None:
        found["groups"] = True
    note(copies_sentence(split, found, len(data)))
    return {"also_in_training": found}


def keep_test(
    run: Run,
    training: Dataset,
    test: Dataset,
    logits: Logits,
    source: Mapping[str, Any],
    note: Callable[[str], None],
) -> Run:
    """Keep the first test of an imported run as its final test.

    Parameters
    ----------
    run : Run
    training, test : Dataset
        The data of the source that it was trained on.
    logits : float32 array, shape (N, classes)
        The run's logits for ``test``.
    source : mapping
        The arguments of ``load`` for the data.
    note : callable
        Called with the reason if there is no report.

    Returns
    -------
    Run
        The run with its metrics.

    Raises
    ------
    PeewitError
        The folder cannot be written to, or another process trains the run.
    """
    with runfolder.locked(run.path):
        runfolder.write_data(run.path, run.dataset, runfolder.lasting_source(source))
        copies = copies_in(test, training).tolist()
        # without a note, because `peewit evaluate` has shown it with the result
        more = without_copies(logits, test, "test", copies, lambda _: None)
        write_result(run.path, test, logits, "test", {"fingerprint": test.fingerprint, **more})
    run = Run.open(run.path)  # after releasing the lock: its status is not "running"
    if missing := plots.advice(run.class_names):
        note(missing)
    evidence = report.Evidence(training=training, judged=test, logits=logits)
    report.after_training(run, evidence, note)
    return run


def write_missing(
    run: Run, dataset: Dataset, test: Dataset | None, callbacks: CallbackList
) -> None:
    """Write the report, pictures and tables that a finished run lacks.

    A run lacks them if it was killed, or out of time, before, or if it was made by an earlier
    version.

    Parameters
    ----------
    run : Run
    dataset, test : Dataset
        The parts of its source.
    callbacks : CallbackList
        Receive notes.
    """
    # not every network has filters and heat maps to show
    names = {runfolder.REPORT, *runfolder.PICTURES} - {runfolder.FILTERS, runfolder.HEAT_MAPS}
    names |= {runfolder.PREDICTIONS, runfolder.MISTAKES_TABLE}
    lacking = sorted(name for name in names if not (run.path / name).is_file())
    if not lacking:
        return
    note, show = callbacks.note, callbacks.on_decoding
    dataset = sized_for(dataset, run.preprocessing, note, show)
    test = None if test is None else sized_for(test, run.preprocessing, note, show)
    found = find_tested(run, dataset, test)
    prints = {
        "training": found.training.fingerprint,
        "test": found.test.fingerprint if found.test else "",
    }
    if run.dataset.get("fingerprints") != prints:
        note(f"{run.path} lacks {', '.join(lacking)}, which only the data of the run can show")
        return
    note(f"{run.path} lacks {', '.join(lacking)}: writing the report and its files")
    judged = found.judged
    logits = run.logits(judged.images) if found.logits is None else found.logits
    result = evaluate(logits, judged.labels, judged.class_names)
    title = f"{run.recipe.name}: {run.metrics['split']} accuracy {run.metrics['accuracy']:.1%}"
    plots.save_curves(run.path / runfolder.CURVES, run.history, title)
    plots.save_confusion(run.path / runfolder.CONFUSION, result)
    mistakes = run.path / runfolder.MISTAKES
    probabilities = softmax(logits)
    plots.save_mistakes(mistakes, judged.images, judged.labels, probabilities, judged.class_names)
    write_prediction_tables(run.path, judged, probabilities, run.metrics["split"])
    evidence = report.Evidence(training=found.fitted, judged=judged, logits=logits)
    report.after_training(run, evidence, note)
