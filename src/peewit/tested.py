"""What a final test leaves in a run's folder: its numbers, its pictures, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit import plots, report, runfolder
from peewit.data.dataset import Dataset
from peewit.evaluation import Evaluation, evaluate
from peewit.inference import softmax
from peewit.run import Run

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
