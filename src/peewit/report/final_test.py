"""The final test: calibration, answers, metrics, pictures and the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit import plots, report
from peewit.data.dataset import Dataset
from peewit.evaluation.inference import logits_unless, second_looks, softmax, unsure_below
from peewit.evaluation.metrics import Evaluation, evaluate
from peewit.evaluation.temperature import FEWEST, Calibration, calibrate, fold
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training.checkpoint import Position
from peewit.training.loop import Job

Logits = npt.NDArray[np.float32]


def write_result(
    path: Path,
    data: Dataset,
    logits: Logits,
    split: str,
    more: Mapping[str, Any],
) -> Evaluation:
    """Write ``metrics.json`` and the pictures of right and wrong answers.

    Parameters
    ----------
    path : Path
        The run's folder.
    data : Dataset
        The images that it was tested on.
    logits : float32 array, shape (N, classes)
        The answers to them.
    split : str
        What the images are: "test" or "validation".
    more : mapping
        What else belongs to the metrics.
    """
    evaluation = evaluate(logits, data.labels, data.class_names)
    plots.save_confusion(path / runfolder.CONFUSION, evaluation)
    mistakes = path / runfolder.MISTAKES
    plots.save_mistakes(mistakes, data.images, data.labels, softmax(logits), data.class_names)
    runfolder.write_metrics(path, {"split": split, **evaluation.to_dict(), **more})
    return evaluation


def keep_test(
    run: Run,
    training: Dataset,
    test: Dataset,
    logits: Logits,
    source: Mapping[str, Any],
    note: Callable[[str], None],
) -> Run:
    """Keep the first test of an imported run, as a training keeps its last.

    Parameters
    ----------
    run : Run
    training, test : Dataset
        Of the source that it was trained on.
    logits : float32 array, shape (N, classes)
        The answers to ``test``.
    source : mapping
        The arguments of ``load`` that gave the data.
    note : callable
        Told why there is no report, if there is none.

    Returns
    -------
    Run
        The same with its metrics.

    Raises
    ------
    PeewitError
        The folder cannot be written to, or a process trains there.
    """
    with runfolder.locked(run.path):
        runfolder.write_data(run.path, run.dataset, runfolder.lasting_source(source))
        write_result(run.path, test, logits, "test", {"fingerprint": test.fingerprint})
    run = Run.open(run.path)  # with the lock given back: no longer running
    evidence = report.Evidence(training=training, judged=test, logits=logits)
    report.after_training(run, evidence, note)
    return run


class Answers(NamedTuple):
    """What a trained model says of images.

    Parameters
    ----------
    logits : float32 array, shape (N, classes)
        Those by which it is judged.
    single : float32 array, shape (N, classes)
        Those of one view of each image: the same ones without test-time augmentation.
    unsure_below : float
        The confidence below which images were looked at again; 0 for none.
    calibration : Calibration or None
        What the model was calibrated by; None if it is as it was trained.
    """

    logits: npt.NDArray[np.float32]
    single: npt.NDArray[np.float32]
    unsure_below: float
    calibration: Calibration | None


def answer(
    job: Job,
    data: Dataset,
    stop: Callable[[], bool],
    fits: Callable[[float], bool] = lambda seconds: True,
    note: Callable[[str], None] = lambda sentence: None,
) -> Answers | None:
    """Return what the job's model says of ``data``, or None if ``stop`` became true.

    Where the recipe says so, the model is calibrated before: its last layer changes, which must
    not be trained on from here.

    Parameters
    ----------
    job : Job
    data : Dataset
        The test images, or the validation images where there are none.
    stop : callable
        Asked after each batch.
    fits : callable
        Asked, with the seconds that one view of each image took, whether there is time for
        test-time augmentation.
    note : callable
        Told in a sentence why a model that was to be calibrated is not.
    """
    began = time.perf_counter()
    network = job.model, job.preprocessing
    validated, calibration = None, None
    if job.recipe.calibrate and _may_calibrate(job, note):
        validated = logits_unless(stop, *network, job.validation.images)
        if validated is None:
            return None
        calibration = calibrate(validated, job.validation.labels)
        if calibration is None:
            note("the confidence is left as it was trained: the network has learned too little")
        else:
            fold(job.model, calibration.temperature)
            validated /= np.float32(calibration.temperature)
    if validated is not None and data is job.validation:
        single: npt.NDArray[np.float32] | None = validated
    else:
        single = logits_unless(stop, *network, data.images)
    if single is None:
        return None
    if not job.recipe.tta or not fits(time.perf_counter() - began):
        return Answers(single, single, 0.0, calibration)
    # by images that were not trained on, and, where there are others, are not judged by
    if validated is None:
        others = job.validation.images
        validated = single if data is job.validation else logits_unless(stop, *network, others)
    if validated is None:
        return None
    below, logits = unsure_below(validated), single.copy()
    mirror = job.recipe.flip != "none"
    looks = second_looks(*network, data.images, single, below, mirror=mirror)
    for chosen, better in looks:
        if stop():
            return None
        logits[chosen] = better
    return Answers(logits, single, below, calibration)


def _may_calibrate(job: Job, note: Callable[[str], None]) -> bool:
    """Tell whether there are held-out images to calibrate by, and if not, say why."""
    left, count = "the confidence is left as it was trained", len(job.validation)
    if job.recipe.validate_on == "test":
        note(f"{left}: calibrating on the test set would make the test too hopeful")
    elif count < FEWEST:
        images = "image is" if count == 1 else "images are"
        note(f"{left}: {count} held-out {images} too few to calibrate by, it takes {FEWEST}")
    else:
        return True
    return False


def costs(position: Position) -> dict[str, float]:
    """Return what the training took: images, operations, seconds of its steps, and the rate.

    ``share_of_best``, of this machine's best measured rate, is there where that was measured.

    Examples
    --------
    >>> rows = [{"images": 10, "flops": 6e9, "gflops": 2.0, "share_of_best": 0.5},
    ...         {"images": 20, "flops": 12e9, "gflops": 6.0, "share_of_best": 0.75}]
    >>> costs(Position(history=rows))["training_seconds"]
    4.0
    >>> costs(Position(history=rows))["gflops"], costs(Position(history=rows))["share_of_best"]
    (3.0, 0.5625)
    """
    rows = [row for row in position.history if row.get("gflops")]
    if not rows:
        return {}
    before = [0.0, *(row["flops"] for row in rows[:-1])]
    works = [row["flops"] - done for row, done in zip(rows, before, strict=True)]
    seconds = sum(work / row["gflops"] for row, work in zip(rows, works, strict=True)) / 1e9
    last = rows[-1]
    taken = {
        "training_images": last["images"],
        "flops": last["flops"],
        "training_seconds": seconds,
        "gflops": last["flops"] / seconds / 1e9,
    }
    # how long the training would have taken at the best rate that was known then
    best = [
        work / row["gflops"] * row["share_of_best"]
        for row, work in zip(rows, works, strict=True)
        if "share_of_best" in row
    ]
    if len(best) == len(rows):
        taken["share_of_best"] = sum(best) / 1e9 / seconds
    return taken
