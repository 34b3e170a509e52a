"""The whole job: from a data set and a recipe to a finished run folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from peewit import plots, report
from peewit.data.dataset import Dataset
from peewit.errors import Interrupted, PeewitError, UsageError
from peewit.evaluation.metrics import evaluate
from peewit.report.final_test import answer, costs, write_result
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.malloc import freed_memory_kept
from peewit.system.text import command, resuming
from peewit.training import checkpoint, environment
from peewit.training.budget.schedules import Course
from peewit.training.build import describe_data, fitted, make_job
from peewit.training.checkpoint import Position
from peewit.training.interrupt import StopRequest
from peewit.training.loop import Job, fit
from peewit.training.progress import Progress, automatic
from peewit.training.recipe import Recipe
from peewit.training.resume import (
    ask_otherwise,
    check_checkpoint,
    check_fits,
    check_reached,
    check_same,
    recipe_to_go_on,
    say_what_differs,
)


def train(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    test: Dataset | None = None,
    out: str | Path | None = None,
    source: Mapping[str, Any] | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    began: float | None = None,
) -> Run:
    """Train a classifier, test it once, and leave everything in a run folder.

    Ctrl-C once ends the step, saves, and raises ``Interrupted``; twice stops at once.

    Parameters
    ----------
    dataset : Dataset
        The training images. Validation images are held out of them, unless the recipe says to
        validate on the test set.
    recipe : Recipe, optional
        How to train; the tutorial's by default, or with ``resume`` the run's own.
    test : Dataset, optional
        The test set, used once, at the end. Without it the final numbers are those of the
        validation images.
    out : path, optional
        The run folder to make; ``runs/<date>-<time>-<source>-<recipe>`` by default.
    source : mapping, optional
        The arguments of ``load`` that give the data again (source, data, coarse), kept in the
        run.
    resume : path, optional
        A run folder to go on with. Only epochs, minutes, until_accuracy, threads,
        checkpoint_minutes and calibrate may differ from its recipe. With the same threads the
        weights end bit-identical to those of a training that was never stopped; a finished run can
        be trained for more epochs. So can an imported one, on any data with its classes.
    progress : Progress, optional
        What shows how it goes: by default what suits the terminal, the notebook or the log.
    began : float, optional
        The value of ``time.perf_counter()`` from which the recipe's ``minutes`` count: by default
        that at the call.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UsageError
        The recipe does not fit the data, or ``out`` is taken, or the minutes are too few.
    PeewitError
        The training cannot go on; what was saved last is still there. Or it has ended, and is
        all saved, but the accuracy that it was to reach was not reached.
    Interrupted
        The user stopped it. Everything is saved.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import peewit
    >>> from peewit.training.progress import Silent
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 22, 22, 3), np.uint8)
    >>> pictures = peewit.Dataset(images, np.arange(40) % 2, ["cat", "dog"])
    >>> recipe = peewit.Recipe.preset("tutorial", epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = peewit.train(pictures, recipe, out=f"{folder}/run", progress=Silent())
    >>> run.status, len(run.history)
    ('finished', 1)
    """
    began = time.perf_counter() if began is None else began
    shown = progress or automatic()
    try:
        with StopRequest() as stop:
            if resume is not None:
                path = Path(resume)
                return _resume(dataset, recipe, test, path, out, source, shown, stop, began)
            return _begin(dataset, recipe or Recipe(), test, out, source, shown, stop, began)
    finally:
        shown.close()


def _begin(
    dataset: Dataset,
    recipe: Recipe,
    test: Dataset | None,
    out: str | Path | None,
    source: Mapping[str, Any] | None,
    progress: Progress,
    stop: StopRequest,
    began: float,
) -> Run:
    source = runfolder.lasting_source(source or {})
    if out is not None:
        runfolder.check_free(Path(out))
    if recipe.threads is None:
        recipe = recipe.replace(threads=environment.usable_threads())
    environment.check_threads(recipe.threads or 1)
    recipe = fitted(recipe, dataset, progress.note)
    course = Course.measured(dataset, test, recipe, began, progress.note)
    job = make_job(dataset, test, course.recipe, progress.note)
    recipe = job.recipe  # fitted to the data
    course.check(len(job.training))
    facts = {
        "class_names": dataset.class_names,
        "preprocessing": job.preprocessing.to_dict(),
        "source": source,
        "dataset": describe_data(dataset, test, job),
        "environment": environment.describe(recipe.threads or 1),
    }
    stop.check("nothing was saved yet", "begin again")
    while True:
        # only now, so that two trainings that begin in the same second do not take the same
        path = Path(out) if out is not None else runfolder.default_folder(source, recipe)
        try:
            runfolder.create(path, facts, recipe)
            break
        except UsageError:
            if out is not None or not path.exists():
                raise  # else another was faster by a moment, and the next name is free
    with runfolder.locked(path):
        return _work(path, job, test, progress, stop, course)


def _resume(
    dataset: Dataset,
    recipe: Recipe | None,
    test: Dataset | None,
    path: Path,
    out: str | Path | None,
    source: Mapping[str, Any] | None,
    progress: Progress,
    stop: StopRequest,
    began: float,
) -> Run:
    if out is not None and Path(out) != path:
        raise UsageError("a run goes on in its own folder", todo=f"leave out {out}")
    Run.open(path)  # says what is wrong with the folder before a lock is put there
    with runfolder.locked(path):
        runfolder.sweep(path)
        run = Run.open(path)
        file, note = path / runfolder.CHECKPOINT, progress.note
        recipe = recipe_to_go_on(path, run.recipe, recipe, dataset, file, note)
        asked, done = (
            (settings.epochs, settings.minutes, settings.until_accuracy)
            for settings in (recipe, run.recipe)
        )
        as_before = asked == done and recipe.calibrate == run.recipe.calibrate
        if run.status == "finished" and as_before:
            after = f"after {recipe.epochs} epochs" if recipe.by_epochs else "as it was asked for"
            check_reached(path, recipe, run.history)
            note(f"{path} is finished {after}; ask for more to train it on")
            return run
        imported = "fingerprints" not in run.dataset
        if run.status == "finished" or len(run.history) > 1 or imported:
            check_checkpoint(path, file)
        job = make_job(dataset, test, recipe, note)
        data = describe_data(dataset, test, job)
        if imported:
            check_fits(path, run.class_names, run.preprocessing, job, note)
        else:
            check_same(path, run.dataset, data)
        if run.status == "finished" and test is not None:
            note(
                "the test set has been used for this run before: choosing the number of epochs "
                "by it makes the final accuracy too hopeful"
            )
        say_what_differs(run.recipe, recipe, asked != done, note)
        course = Course.measured(dataset, test, recipe, began, note, settled=True)
        stop.check("the run is as it was", f"go on with {resuming(path)}")
        if imported:
            runfolder.write_data(path, data, runfolder.lasting_source(source or run.source))
        # in this order: whenever a kill comes, the folder tells the truth
        runfolder.write_finished(path, False)
        # begun when and how it was, it goes on where this is
        here = environment.describe(recipe.threads or 1)
        start = {name: run.environment.get(name, "") for name in ("date", "command")}
        runfolder.note_facts(path, environment=here | start)
        runfolder.write_recipe(path, recipe)
        runfolder.remove_results(path)
        return _work(path, job, test, progress, stop, course)


def _work(
    path: Path,
    job: Job,
    test: Dataset | None,
    progress: Progress,
    stop: StopRequest,
    course: Course,
) -> Run:
    """Train in the run folder ``path`` from where its checkpoint stands, and test."""
    progress.folder(path)
    job = dataclasses.replace(job, best_rate=course.best_rate)
    recipe, file = job.recipe, path / runfolder.CHECKPOINT
    go_on = f"go on with {resuming(path)}"
    with environment.isolated(recipe.threads or 1), freed_memory_kept():
        torch.manual_seed(recipe.seed)
        position = Position()
        if file.is_file():
            position = checkpoint.load(file, job.model, job.optimizer, job.hard)
            progress.note(f"going on after {position.epoch} epochs and {position.step} steps")

        def save() -> None:
            try:
                if position.step == 0:  # an epoch has just ended
                    weights = job.model.state_dict()
                    checkpoint.write_tensors(path / runfolder.WEIGHTS, weights, {})
                    runfolder.write_history(path, position.history)
                # last: once it says that the epoch has ended, the others are there
                checkpoint.save(file, job.model, job.optimizer, position, job.hard)
            except PeewitError as error:
                raise PeewitError(
                    error.what, error.why, f"make room or mend the folder, then {go_on}"
                ) from error

        ended = True
        for number, schedule in enumerate(course.schedules(position, len(job.training))):
            if number == 0:
                images = min(len(job.training), recipe.steps(len(job.training)) * recipe.batch_size)
                progress.start(recipe.epochs, images, recipe.batch_size, position)
            ended = fit(
                *(job, position),
                progress=progress,
                stop=lambda: stop.requested,
                save=save,
                schedule=schedule,
            )
            if not ended:
                break
        evidence = _finish(path, job, test, position, progress, stop, course) if ended else None
        if evidence is None:
            raise Interrupted("the training was stopped", "everything is saved", go_on)
        runfolder.write_finished(path, True)
        run = Run.open(path)
        if course.report_fits():
            report.after_training(run, evidence, progress.note)
        else:
            makes = command(["peewit", "report", path])
            progress.note(f"no time was left for the report: {makes} makes it")
    if course.given_up:
        raise course.failure(position, ask_otherwise(path, position.spent))
    return run


def _finish(
    path: Path,
    job: Job,
    test: Dataset | None,
    position: Position,
    progress: Progress,
    stop: StopRequest,
    course: Course,
) -> report.Evidence | None:
    """Write the numbers and pictures of the trained model; None if stopped before the end."""
    data = test if test is not None else job.validation
    split = "test" if test is not None else "validation"
    progress.note(f"testing on {len(data):,} {split} images")
    answers = answer(job, data, lambda: stop.requested, course.augmentation_fits, progress.note)
    if answers is None:
        return None
    # calibrated, or no longer so after an end that was stopped; the checkpoint, from which a
    # training goes on, keeps the weights as they were trained
    checkpoint.write_tensors(path / runfolder.WEIGHTS, job.model.state_dict(), {})
    more: dict[str, Any] = dict(costs(position))
    if answers.unsure_below:
        single = evaluate(answers.single, data.labels, data.class_names)
        more["single_view_accuracy"] = single.accuracy
    if job.recipe.tta:  # also a 0, for an earlier end may have had time for it
        runfolder.write_unsure(path, answers.unsure_below)
    if answers.calibration is not None:
        more["temperature_scaling"] = answers.calibration.to_dict()
    evaluation = write_result(path, data, answers.logits, split, more)
    title = f"{job.recipe.name}: {split} accuracy {evaluation.accuracy:.1%}"
    plots.save_curves(path / runfolder.CURVES, position.history, title)
    return report.Evidence(training=job.training, judged=data, logits=answers.logits)
