"""Train, test and report: from a data set and a recipe to a finished run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from peewit.data.audit.quick import quick_findings
from peewit.data.dataset import Dataset
from peewit.data.division import (
    LEFT_OUT,
    Division,
    as_recorded,
    divide,
    named,
    near_groups,
    with_near_duplicates,
)
from peewit.data.packing import at_size
from peewit.data.packing.decoding import Progress
from peewit.data.pictures import files_of
from peewit.errors import PeewitError, UsageError
from peewit.report.final_test import write_missing
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.malloc import freed_memory_kept
from peewit.system.text import counted, resuming
from peewit.training import checkpoint, environment
from peewit.training.budget import planner
from peewit.training.budget.benchmark import Machine
from peewit.training.budget.schedules import Schedules
from peewit.training.build import build_setup, check_data, describe_data
from peewit.training.callbacks import Callback, CallbackList
from peewit.training.defaults import chosen_fit, network_size
from peewit.training.distributed import Processes, connected
from peewit.training.folds import resolve_with_folds
from peewit.training.interrupt import StopRequest
from peewit.training.loop import TrainSetup, follow
from peewit.training.progress import automatic
from peewit.training.recipe import OF_THE_TEST, Recipe
from peewit.training.resume import (
    check_checkpoint,
    check_fits,
    check_progress,
    check_reached,
    check_same,
    note_differences,
    recipe_to_resume,
)
from peewit.training_run import train_and_test
from peewit.transfer.backbone import with_backbone
from peewit.transfer.choice import choose_start


def train(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    test: Dataset | None = None,
    out: str | Path | None = None,
    source: Mapping[str, Any] | None = None,
    resume: str | Path | None = None,
    progress: Callback | None = None,
    callbacks: Sequence[Callback] = (),
    began: float | None = None,
    illustrated: bool = True,
) -> Run:
    """Train a classifier, test it once, and write everything to a run folder.

    Ctrl-C once finishes the step, saves, and raises ``Interrupted``; twice stops at once.

    Parameters
    ----------
    dataset : Dataset
        The training images. Validation images are held out of them unless the recipe validates on
        the test set.
    recipe : Recipe, optional
        How to train: by default the tutorial's recipe, or the run's own with ``resume``.
    test : Dataset, optional
        The test set, used once, at the end. Without it the final metrics are those of the
        validation images.
    out : path, optional
        The run folder to create; ``runs/<date>-<time>-<source>-<recipe>`` by default.
    source : mapping, optional
        The arguments of ``load`` for this data (source, data, coarse), kept in the run.
    resume : path, optional
        A run folder to resume. Only epochs, minutes, until_accuracy, threads, checkpoint_minutes
        and calibrate may differ from its recipe. With the same number of threads the final weights
        are bit-identical to those of an uninterrupted run. A finished run gets the report and
        pictures that it lacks, and can be trained for more epochs. So can an imported run, on any
        data with its classes.
    progress : Callback, optional
        Shows the progress: by default in the form that suits the terminal, notebook or log.
        ``Callback()`` shows nothing.
    callbacks : sequence of Callback, optional
        Your own, called after Peewit's: see ``peewit.Callback``.
    began : float, optional
        The value of ``time.perf_counter()`` from which the recipe's ``minutes`` count; by default
        the time of the call.
    illustrated : bool
        Whether a new run gets pictures and a report, and the machine's best rate is measured for
        them. Without, a training ends two seconds earlier; resuming the run adds them.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UsageError
        The recipe does not fit the data, ``out`` exists, or the budget is too small.
    PeewitError
        The training failed; its last checkpoint is still there. Or it has ended, with everything
        saved, without reaching the requested accuracy.
    Interrupted
        The user or a callback stopped it. Everything is saved.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import peewit
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 22, 22, 3), np.uint8)
    >>> pictures = peewit.Dataset(images, np.arange(40) % 2, ["cat", "dog"])
    >>> recipe = peewit.Recipe.preset("tutorial", epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = peewit.train(pictures, recipe, out=f"{folder}/run", progress=peewit.Callback())
    >>> run.status, len(run.history)
    ('finished', 1)
    """
    began = time.perf_counter() if began is None else began
    stop = StopRequest()
    told = CallbackList([stop, progress or automatic(), *callbacks])
    try:
        with stop, connected() as processes:
            path = None if resume is None else Path(resume)
            if processes and processes.rank:
                return _take_part(dataset, test, path, stop, processes)
            if path is not None:
                run = _resume(
                    *(dataset, recipe, test, path, out, source, told, stop, began, processes)
                )
            else:
                recipe = recipe or Recipe()
                run = _begin(
                    *(dataset, recipe, test, out, source, told, stop, began, illustrated, processes)
                )
            if processes:
                processes.end()
                processes.text_of_first(str(run.path.absolute()))
            return run
    finally:
        told.close()


def _begin(
    dataset: Dataset,
    recipe: Recipe,
    test: Dataset | None,
    out: str | Path | None,
    source: Mapping[str, Any] | None,
    callbacks: CallbackList,
    stop: StopRequest,
    began: float,
    illustrated: bool,
    processes: Processes | None,
) -> Run:
    source = runfolder.lasting_source(source or {})
    given = test is not None
    if out is not None:
        runfolder.check_free(Path(out))
    if recipe.threads is not None:
        environment.check_threads(recipe.threads)
    check_data(dataset, test, recipe)
    machine = Machine(began, processes=_count(processes))
    backbone: dict[str, Any] = {}
    if recipe.backbone is not None:
        recipe, facts = with_backbone(recipe, callbacks.note)
        backbone = {"backbone": facts}
    recipe = choose_start(recipe, dataset, test, callbacks.note)
    recipe = resolve_with_folds(recipe, dataset, test, machine, callbacks.note)
    if processes:
        _share_recipe(processes, recipe)
    listed = [name for part in (dataset, test) if part is not None for name in part.names or ()]
    files = files_of(dataset.images)
    dataset, test, near = _prepared(dataset, test, recipe, callbacks, stop)
    findings = {}
    if near is not None:
        left_out = () if files is None else files[0].listing.notes
        findings = {"findings": quick_findings(listed, left_out, dataset, test, near)}
    division = divide(
        *(dataset, test),
        seed=recipe.seed,
        validation_fraction=_validation_fraction(recipe),
        folds=recipe.folds or 0,
    )
    dataset, test = division.dataset, division.test
    if division.folds is not None:
        callbacks.note(
            f"there is no test set: the accuracy of {len(dataset):,} images is measured by "
            f"{recipe.folds}-fold cross-validation, and the final network is trained on all of them"
        )
    elif test is not None and not given:
        callbacks.note(f"there is no test set: {len(test):,} images are held out for it")
    setup = _divided(build_setup(dataset, test, recipe, callbacks.note, division), processes)
    measured = planner.measure(dataset, test, recipe, machine, rated=illustrated)
    setup = replace(setup, best_rate=machine.best_rate)
    schedules = Schedules(recipe, len(setup.training), callbacks.note, measured, began)
    schedules.illustrated = illustrated
    schedules.check()
    facts = {
        "class_names": dataset.class_names,
        "preprocessing": setup.preprocessing.to_dict(),
        "source": source,
        "dataset": describe_data(dataset, test, setup),
        "environment": environment.describe(recipe.threads or 1),
        **backbone,
        **findings,
    }
    stop.check("nothing was saved yet", "start it again")
    while True:
        # only now, so that two runs that start in the same second do not choose the same name
        path = Path(out) if out is not None else runfolder.default_folder(source, recipe)
        try:
            runfolder.create(path, facts, recipe)
            break
        except UsageError:
            if out is not None or not path.exists():
                raise  # another process took this name; the next one is free
    with runfolder.locked(path):
        if rows := division.rows():
            kept = {name for name, _ in rows}
            unreadable = [(name, LEFT_OUT) for name in listed if name not in kept]
            runfolder.write_split(path, [*rows, *unreadable])
        return train_and_test(path, setup, division, callbacks, schedules)


def _take_part(
    dataset: Dataset,
    test: Dataset | None,
    resume: Path | None,
    stop: StopRequest,
    processes: Processes,
) -> Run:
    """Take part in the steps of rank 0, which does everything else; return its run."""
    recipe = _share_recipe(processes)
    quiet = CallbackList([stop])
    dataset, test, _ = _prepared(dataset, test, recipe, quiet, stop)
    if resume is not None:
        division = _division_to_resume(Run.open(resume), dataset, test, quiet.note)
    else:
        division = divide(
            *(dataset, test),
            seed=recipe.seed,
            validation_fraction=_validation_fraction(recipe),
            folds=recipe.folds or 0,
        )
    setup = build_setup(division.dataset, division.test, recipe, quiet.note, division)
    setup = _divided(setup, processes)
    with environment.isolated(recipe.threads or 1), freed_memory_kept():
        if resume is not None and (file := resume / runfolder.CHECKPOINT).is_file():
            checkpoint.load(file, setup.model, setup.optimizer, setup.hard_examples)
        follow(setup)
    return Run.open(processes.text_of_first())


def _share_recipe(processes: Processes, recipe: Recipe | None = None) -> Recipe:
    """Return the recipe that rank 0 has resolved."""
    text = processes.text_of_first(json.dumps(recipe.to_dict()) if recipe else "")
    return Recipe(**json.loads(text))


def _count(processes: Processes | None) -> int:
    return processes.size if processes else 1


def _divided(setup: TrainSetup, processes: Processes | None) -> TrainSetup:
    """Return the setup for a training whose batches are divided among ``processes``."""
    if processes:
        processes.synchronise(setup.model)
    return replace(setup, processes=processes)


def _prepared(
    dataset: Dataset,
    test: Dataset | None,
    recipe: Recipe,
    callbacks: CallbackList,
    stop: StopRequest,
) -> tuple[Dataset, Dataset | None, npt.NDArray[np.int64] | None]:
    """Return the data with all pictures decoded at the size of the recipe's network.

    Near-duplicates among the pictures of files are grouped; they are returned too. Arrays are
    returned unchanged.
    """

    def show(progress: Progress) -> None:
        stop.check("the pictures decoded so far are kept, if they are cached", "start it again")
        callbacks.on_decoding(progress)

    size, form = network_size(dataset, recipe), chosen_fit(recipe)
    dataset = at_size(dataset, *size, form, callbacks.note, show)
    test = None if test is None else at_size(test, *size, form, callbacks.note, show)
    if dataset.names is None:
        return dataset, test, None
    near = near_groups(dataset, test, callbacks.note)
    return *with_near_duplicates(dataset, test, callbacks.note, near), near


def _validation_fraction(recipe: Recipe) -> float | None:
    return recipe.validation_fraction if recipe.validate_on == "holdout" else None


def _resume(
    dataset: Dataset,
    recipe: Recipe | None,
    test: Dataset | None,
    path: Path,
    out: str | Path | None,
    source: Mapping[str, Any] | None,
    callbacks: CallbackList,
    stop: StopRequest,
    began: float,
    processes: Processes | None,
) -> Run:
    if out is not None and Path(out) != path:
        raise UsageError("a resumed run stays in its folder", todo=f"omit {out}")
    Run.open(path)  # reports a damaged folder before a lock file is put there
    with runfolder.locked(path):
        runfolder.sweep(path)
        run = Run.open(path)
        file, note = path / runfolder.CHECKPOINT, callbacks.note
        recipe = recipe_to_resume(path, run.recipe, recipe, dataset, file, note)
        asked, done = (
            (settings.epochs, settings.minutes, settings.until_accuracy)
            for settings in (recipe, run.recipe)
        )
        as_before = asked == done and all(
            getattr(recipe, name) == getattr(run.recipe, name) for name in OF_THE_TEST
        )
        if run.status == "finished" and as_before:
            write_missing(run, dataset, test, callbacks)
            after = f"after {recipe.epochs} epochs" if recipe.by_epochs else "as requested"
            check_reached(path, recipe, run.history)
            note(f"{path} is finished {after}; ask for more epochs or minutes to train it further")
            return run
        imported = "fingerprints" not in run.dataset
        if run.status == "finished" or len(run.history) > 1 or imported:
            check_checkpoint(path, file)
        check_data(dataset, test, recipe)
        if processes:
            _share_recipe(processes, recipe)
        dataset, test, _ = _prepared(dataset, test, recipe, callbacks, stop)
        division = _division_to_resume(run, dataset, test, note)
        dataset, test = division.dataset, division.test
        setup = _divided(build_setup(dataset, test, recipe, note, division), processes)
        data = describe_data(dataset, test, setup)
        if imported:
            check_fits(path, run.class_names, run.preprocessing, setup, note)
        else:
            check_same(path, run.dataset, data)
        if file.is_file():
            # before anything in the folder changes: a damaged one must not cost it its results
            with environment.isolated(recipe.threads or 1):
                state = checkpoint.load(file, setup.model, setup.optimizer, setup.hard_examples)
            check_progress(file, state, setup)
        if run.status == "finished" and test is not None:
            note(
                "this run has been tested before: choosing the number of epochs by the test "
                "accuracy biases it upwards"
            )
        note_differences(run.recipe, recipe, asked != done, note)
        machine = Machine(began, processes=_count(processes))
        measured = planner.measure(dataset, test, recipe, machine)
        setup = replace(setup, best_rate=machine.best_rate)
        schedules = Schedules(recipe, len(setup.training), note, measured, began)
        stop.check("the run is unchanged", f"resume it: {resuming(path)}")
        if imported:
            runfolder.write_data(path, data, runfolder.lasting_source(source or run.source))
        # in this order, so that the folder is consistent whenever the process is killed
        runfolder.write_finished(path, False)
        # date and command are those of the start; the rest describes this machine
        here = environment.describe(recipe.threads or 1)
        start = {name: run.environment.get(name, "") for name in ("date", "command")}
        runfolder.note_facts(path, environment=here | start)
        runfolder.write_recipe(path, recipe)
        runfolder.remove_results(path)
        if asked != done:  # the folds are trained for as long as the final network
            (path / runfolder.FOLDS).unlink(missing_ok=True)
        if imported and (rows := division.rows()):
            runfolder.write_split(path, rows)
        return train_and_test(path, setup, division, callbacks, schedules)


def _division_to_resume(
    run: Run, dataset: Dataset, test: Dataset | None, note: Callable[[str], None]
) -> Division:
    """Return the recorded parts of the data; without a record, as they were at the start.

    Raises
    ------
    PeewitError
        Pictures of the run are missing.
    """
    parts = runfolder.read_split(run.path)
    if not parts:
        fraction = _validation_fraction(run.recipe)
        return divide(dataset, test, seed=run.recipe.seed, validation_fraction=fraction)
    division = as_recorded(parts, dataset, test)
    if division.missing:
        raise PeewitError(
            f"cannot resume {run.path}",
            f"{counted(len(division.missing), 'picture')} of the run can no longer be read "
            f"({named(division.missing)})",
            "restore the files, or start a new run",
        )
    if division.added:
        note(
            "left out, because the source did not have them at the start of the run: "
            f"{counted(len(division.added), 'picture')} ({named(division.added)})"
        )
    return division
