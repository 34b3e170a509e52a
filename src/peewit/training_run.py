"""Train in a run folder, with a cross-validation if there is one, test, and report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from peewit import plots, report
from peewit.cross_validation import cross_validate, metrics_of, pooled_logits
from peewit.data.dataset import Dataset
from peewit.data.division import Division
from peewit.data.packing.decoding import Progress
from peewit.errors import Interrupted
from peewit.evaluation.distance import ClassDistances
from peewit.evaluation.rejection import by_score, rejection
from peewit.models.encoders.network import EncoderNetwork
from peewit.report.final_test import (
    final_logits,
    training_costs,
    without_copies,
    write_result,
)
from peewit.report.sentences import CROSS_VALIDATION, no_better_than_baseline
from peewit.runs import folder as runfolder
from peewit.runs.folds import FoldResults
from peewit.runs.run import Run
from peewit.runs.saving import SaveCheckpoints
from peewit.system.malloc import freed_memory_kept
from peewit.system.text import command, resuming
from peewit.training import checkpoint, environment
from peewit.training.budget.schedules import Schedules
from peewit.training.callbacks import CallbackList, StopTraining, TrainInfo
from peewit.training.loop import TrainSetup, fit
from peewit.training.resume import advice_when_given_up
from peewit.training.state import TrainState
from peewit.transfer.features import Features
from peewit.transfer.start import begin_with_head, better_of_both


def train_and_test(
    path: Path,
    setup: TrainSetup,
    division: Division,
    callbacks: CallbackList,
    schedules: Schedules,
) -> Run:
    """Train in the run folder ``path`` from its checkpoint on, if there is one, and test."""
    callbacks.on_run_folder(path)
    recipe, file = setup.recipe, path / runfolder.CHECKPOINT
    frozen = setup
    if recipe.start == "pretrained":
        frozen = _with_features(setup, division, file, callbacks, path)
    results = _cross_validate(path, frozen, division, callbacks, schedules)
    if results is not None:
        at = results.validation_at
        setup, frozen = (replace(one, validated_by_folds=at) for one in (setup, frozen))
    # first, so that the state is saved before other callbacks report it
    ordered = [SaveCheckpoints(path, setup), *callbacks.callbacks]
    callbacks = CallbackList(sorted(ordered, key=lambda one: not one.before_checkpoint))
    with environment.isolated(recipe.threads or 1), freed_memory_kept():
        torch.manual_seed(recipe.seed)
        state = TrainState()
        if file.is_file():
            state = checkpoint.load(file, setup.model, setup.optimizer, setup.hard_examples)
            callbacks.note(f"resuming after {state.epoch} epochs and {state.step} steps")
        try:
            images = min(len(setup.training), setup.steps_per_epoch * recipe.batch_size)
            begin = TrainInfo(recipe.epochs, images, recipe.batch_size)
            callbacks.on_train_begin(begin, state)
            if frozen.features is not None and not state.history:
                callbacks.note(begin_with_head(frozen, state, callbacks).sentence())
            for schedule in schedules.each(state):
                fit(setup, state, callbacks, schedule)
            if frozen.features is not None:
                setup = better_of_both(setup, frozen, state, callbacks) if state.seen else frozen
            evidence = _test(path, setup, division, results, state, callbacks, schedules)
        except StopTraining:
            raise _stopped(path) from None
        runfolder.write_finished(path, True)
        run = Run.open(path)
        if schedules.decide_report():
            report.after_training(run, evidence, callbacks.note)
        elif schedules.illustrated:
            writes = command(["peewit", "report", path])
            callbacks.note(f"no time left for the report; write it with: {writes}")
        callbacks.on_train_end(path)
    if schedules.given_up:
        raise schedules.failure(state, advice_when_given_up(path, state.spent))
    return run


def _with_features(
    setup: TrainSetup, division: Division, file: Path, callbacks: CallbackList, path: Path
) -> TrainSetup:
    """Return the setup with the features of the pretrained network.

    Those of all images are computed now, unless the network has been fine-tuned already.
    """

    def show(progress: Progress) -> None:
        callbacks.check_stop()
        callbacks.on_decoding(progress)

    network = setup.model
    encoder = network.encoder if isinstance(network, EncoderNetwork) else None
    features = Features(setup.recipe.model, setup.preprocessing, show, encoder)
    if not file.is_file() or not checkpoint.read_state(file).seen:
        try:
            with environment.isolated(setup.recipe.threads or 1), freed_memory_kept():
                for part in (division.dataset, division.test):
                    if part is not None:
                        features.of(part)
        except StopTraining:
            raise _stopped(path) from None
    return replace(setup, features=features.of)


def _cross_validate(
    path: Path,
    setup: TrainSetup,
    division: Division,
    callbacks: CallbackList,
    schedules: Schedules,
) -> FoldResults | None:
    """Train and test the folds that are not finished; return None if there are no folds."""
    if division.folds is None:
        return None
    recipe, data, file = setup.recipe, division.dataset, path / runfolder.CHECKPOINT
    before = FoldResults.read(path, len(data), len(data.class_names)).spent
    schedules.began -= before  # the time of earlier sessions counts
    schedules.fewest = 0  # if the folds took too long, the final network still gets a step
    ends, measured = None, schedules.measured
    if recipe.minutes is not None and measured is not None:
        spent = checkpoint.read_state(file).spent if file.is_file() else 0.0
        ends = schedules.began + 60 * recipe.minutes - measured.ending.reserve() - spent
    try:
        with environment.isolated(recipe.threads or 1), freed_memory_kept():
            return cross_validate(
                *(path, data, division.folds, recipe, measured, callbacks, ends, setup.features)
            )
    except StopTraining:
        raise _stopped(path) from None


def _reject_by_features(
    path: Path,
    setup: TrainSetup,
    division: Division,
    data: Dataset,
    right: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """Write the distributions of the features of the training images; return their threshold."""
    assert setup.features is not None
    features, labels = setup.features(setup.training), setup.training.labels
    distances = ClassDistances.fit(features, labels)
    tensors = {name: torch.from_numpy(one) for name, one in distances.to_tensors().items()}
    checkpoint.write_tensors(path / runfolder.DISTANCES, tensors, {})
    if division.folds is None:
        held_out, tested = (
            distances.scores(setup.features(part)) for part in (setup.validation, data)
        )
        return by_score(held_out, tested, right)
    features, labels = setup.features(data), data.labels
    scores = np.empty(len(data), np.float32)
    for number in np.unique(division.folds):
        held = division.folds == number
        scores[held] = ClassDistances.fit(features[~held], labels[~held]).scores(features[held])
    return by_score(scores, scores, right)


def _stopped(path: Path) -> Interrupted:
    todo = f"resume it: {resuming(path)}"
    return Interrupted("the training was stopped", "everything is saved", todo)


def _test(
    path: Path,
    setup: TrainSetup,
    division: Division,
    results: FoldResults | None,
    state: TrainState,
    callbacks: CallbackList,
    schedules: Schedules,
) -> report.Evidence:
    """Write the metrics and pictures of the trained model.

    Raises
    ------
    StopTraining
        A callback asked to stop.
    """
    test = division.test
    data, split = (setup.validation, "validation") if test is None else (test, "test")
    if results is not None:
        data, split = division.dataset, CROSS_VALIDATION
        found = pooled_logits(setup, results, data, callbacks)
    else:
        callbacks.note(f"testing on {len(data):,} {split} images")
        found = final_logits(setup, data, callbacks, schedules.decide_augmentation)
    if schedules.illustrated and (missing := plots.advice(data.class_names)):
        callbacks.note(missing)
    # replaces weights that an interrupted final test may have calibrated; the checkpoint, from
    # which the run is resumed, keeps the weights as they were trained
    checkpoint.write_tensors(path / runfolder.WEIGHTS, setup.model.state_dict(), {})
    more: dict[str, Any] = dict(training_costs(state))
    if results is not None:
        more |= metrics_of(results)
    if found.threshold:
        more["single_view_accuracy"] = float((found.single.argmax(1) == data.labels).mean())
    if setup.recipe.tta:  # also a 0, because an earlier final test may have had time for it
        runfolder.write_unsure(path, found.threshold)
    if found.estimated_from:
        more["batch_norm_images"] = found.estimated_from
    if found.calibration is not None:
        more["temperature_scaling"] = found.calibration.to_dict()
    (path / runfolder.DISTANCES).unlink(missing_ok=True)
    if found.held_out is not None and (
        rule := rejection(found.held_out, found.logits, data.labels)
    ):
        more["rejection"] = rule
        if setup.features is not None:
            right = found.logits.argmax(1) == data.labels
            rule["by_features"] = _reject_by_features(path, setup, division, data, right)
    more |= without_copies(found.logits, data, split, setup.copies, callbacks.note)
    drawn = schedules.illustrated
    evaluation = write_result(path, data, found.logits, split, more, drawn=drawn)
    caution = no_better_than_baseline(evaluation.to_dict(), state.history, setup.recipe.lr)
    if caution:
        callbacks.note(caution)
    if drawn:
        title = f"{setup.recipe.name}: {split} accuracy {evaluation.accuracy:.1%}"
        plots.save_curves(path / runfolder.CURVES, state.history, title)
    return report.Evidence(training=setup.training, judged=data, logits=found.logits)
