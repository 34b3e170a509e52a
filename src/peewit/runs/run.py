"""A Run: the folder of a training run, and the object over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError, UsageError
from peewit.evaluation.inference import (
    BATCH,
    augment_uncertain,
    forward_of,
    logits_in_batches,
    softmax,
)
from peewit.evaluation.rejection import FEWEST
from peewit.images.preprocessing import Preprocessing, from_prepared
from peewit.runs import folder as runfolder
from peewit.runs import schema
from peewit.system.files import cannot_read, check_text, damaged
from peewit.system.text import counted, resuming
from peewit.system.validation import read_json, validated
from peewit.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peewit.images.reader import Png


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """The result of training. It needs nothing but its folder; get one with ``Run.open``.

    Parameters
    ----------
    path : Path
        The folder.
    recipe : Recipe
        How it was trained, with the number of threads (the maximum, if it has a time budget).
    class_names : tuple of str
        The classes, in the order of the logits.
    preprocessing : Preprocessing
        How images become the model's input.
    history : list of dict
        One row per epoch, or per several short epochs of a fast recipe: epoch (the last one may be
        cut short by a time budget), seconds (including validation), images_per_second (of
        training), loss, accuracy, validation_loss, validation_accuracy; the totals images and flops
        so far; gflops (the rate of the training steps, in 10**9 operations per second) and
        share_of_best (its ratio to the best rate measured on the machine).
    metrics : dict
        The results of the final test; empty until the run is finished, or, for an imported run,
        evaluated. ``metrics["split"]`` is "test"; "cross-validation" or "validation" if there was
        no test set;
        ``metrics["temperature_scaling"]`` describes the calibration, if there was one.
    environment : dict
        Versions, processor, threads, command line.
    source : dict
        How to load the data again: source, data, coarse. Empty if the data was passed as arrays.
    dataset : dict
        Facts about the data: origin, counts, fingerprints.
    status : str
        "running", "interrupted" or "finished"; "imported" if the weights come from another
        program and it has not been trained further.
    unsure_below : float
        Images whose most probable class has a lower probability get test-time augmentation
        (``peewit.evaluation.inference.augment_uncertain``). 0, for none, unless the recipe says
        ``tta`` and the run is finished.
    backbone : dict
        The file name, SHA-256 and number of features of the backbone; empty without one.
    findings : dict
        What the start of the training found in its pictures: notes, imbalance, and kinds as in
        ``peewit data check``. Empty for a run that was trained on arrays.
    """

    path: Path
    recipe: Recipe
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    environment: dict[str, Any]
    source: dict[str, Any]
    dataset: dict[str, Any]
    status: str
    unsure_below: float = 0.0
    backbone: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the run folder ``path``.

        Raises
        ------
        PeewitError
            It is not a run folder, a file is missing or damaged, or a newer Peewit wrote it.
        UsageError
            The folder's name is not valid UTF-8.
        """
        path = Path(path)
        facts = validated(path / runfolder.FACTS, runfolder.read_facts(path), schema.Facts)
        check_text(path)
        check_text(path.resolve().name)  # reports contain it, even if the path is "."
        status = runfolder.status(path, facts)
        finished = status == "finished"
        # an imported run can be evaluated without training
        tested = finished or (status == "imported" and (path / runfolder.METRICS).is_file())
        recipe = runfolder.read_recipe(path)
        history = runfolder.read_history(path, required=finished)
        # with a decaying learning rate not every epoch is validated, but the last one is
        ended = len(history)
        if recipe.schedule == "linear" and history:
            ended = int(history[-1]["epoch"])
        if finished and (ended != recipe.epochs if recipe.by_epochs else not history):
            file = path / runfolder.HISTORY
            asked = f" of {recipe.epochs}" if recipe.by_epochs else ""
            raise damaged(file, f"it has {ended} epochs{asked}")
        names, source = facts["class_names"], facts["source"]
        return cls(
            path=path,
            recipe=recipe,
            class_names=tuple(names),
            preprocessing=_preprocessing(path, facts["preprocessing"]),
            history=history,
            metrics=_metrics(path, len(names)) if tested else {},
            environment=facts["environment"],
            source=dict(source) if "source" in source else {},
            dataset=dict(facts["dataset"]),
            status=status,
            unsure_below=facts.get("unsure_below", 0.0) if finished else 0.0,
            backbone=dict(facts.get("backbone", {})),
            findings=dict(facts.get("findings", {})),
        )

    @property
    def epochs(self) -> float:
        """Passes over the training images: a whole number unless the run has a budget."""
        if not self.history:
            return 0
        last, images = self.history[-1], self.dataset.get("images", {}).get("training")
        if self.recipe.by_epochs or not images or "images" not in last:
            return int(last["epoch"])
        return float(last["images"] / images)

    @classmethod
    def find_all(cls, folder: str | Path) -> tuple[list[Run], list[PeewitError]]:
        """Return the runs directly in ``folder`` by name, and the errors of damaged ones.

        Raises
        ------
        PeewitError
            There is no such folder.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise PeewitError(f"there is no folder {folder}", todo="train something first")
        runs, broken = [], []
        for path in sorted(file.parent for file in folder.glob(f"*/{runfolder.FACTS}")):
            if path.name.startswith("."):  # still being created
                continue
            try:
                runs.append(cls.open(path))
            except PeewitError as error:
                broken.append(error)
        return runs, broken

    @property
    def reject_below(self) -> float:
        """The probability that the most probable class of a picture of no class does not reach.

        It comes from held-out images, of which 95 % reach it.

        Raises
        ------
        PeewitError
            The run has no such threshold.
        """
        if "rejection" not in self.metrics:
            raise PeewitError(
                f"the run {self.path} cannot reject pictures",
                "it has no threshold: that needs a finished training by this version, with at "
                f"least {FEWEST} held-out images",
                "train it again",
            )
        return float(self.metrics["rejection"]["threshold"])

    def model(self) -> nn.Module:
        """Return a new network with the trained weights, in evaluation mode.

        Raises
        ------
        PeewitError
            There are no weights yet, or their file is damaged or of another model.
        """
        from peewit.training.checkpoint import load_weights, read_tensors
        from peewit.training.network import build_network

        file = self.path / runfolder.WEIGHTS
        if not file.is_file() and self.status != "finished":
            raise PeewitError(
                f"the run {self.path} has no weights yet",
                "its first epoch has not ended",
                f"resume it: {resuming(self.path)}",
            )
        rule = self.preprocessing
        shape = (rule.height, rule.width, rule.channels)
        sha256 = self.backbone.get("sha256")
        network = build_network(self.recipe, shape, len(self.class_names), sha256)
        load_weights(file, network, read_tensors(file)[0])
        return network.eval()

    @cached_property
    def _network(self) -> nn.Module:
        from peewit.models.fast import fix

        network = self.model()
        fix(network)
        return network

    def logits(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the model's logits for ``images``.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, C)
            Any size, grey or RGB.
        batch_size : int
            Images per forward pass; it only affects memory.

        Returns
        -------
        float32 array, shape (N, classes)
        """
        return self._logits(self.preprocessing.tensor, images, batch_size)

    def logits_of_prepared(
        self, pictures: npt.NDArray[np.float32], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the model's logits for the output of ``preprocessing.array``.

        Parameters
        ----------
        pictures : float32 array, shape (N, height, width, C)
        batch_size : int

        Returns
        -------
        float32 array, shape (N, classes)
        """
        return self._logits(from_prepared, pictures, batch_size)

    def _logits(
        self,
        prepare: Callable[[npt.NDArray[Any]], torch.Tensor],
        images: npt.NDArray[Any],
        batch_size: int,
    ) -> npt.NDArray[np.float32]:
        network = self._network
        none = np.empty((0, len(self.class_names)), np.float32)
        logits = np.concatenate([none, *logits_in_batches(network, prepare, images, batch_size)])
        return augment_uncertain(
            forward_of(network),
            lambda chosen: prepare(images[chosen]).permute(0, 2, 3, 1).numpy(),
            *(logits, self.unsure_below),
            mirror=self.recipe.flip != "none",
            batch_size=batch_size,
        )

    def probabilities(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return each class's probability, float32, shape (N, classes); see ``logits``."""
        return softmax(self.logits(images, batch_size))

    def picture(self, name: str) -> Png:
        """Return a picture from the run folder; a notebook displays it.

        Parameters
        ----------
        name : str
            curves, confusion, mistakes, uncertain, reliability, samples, filters or heatmaps.

        Raises
        ------
        UsageError
            There is no picture of this name.
        PeewitError
            It has not been drawn, or cannot be read.
        """
        from peewit.images.reader import Png  # opening a run rarely needs Pillow

        file = f"{name}.png"
        if file not in runfolder.PICTURES:
            known = ", ".join(known.removesuffix(".png") for known in runfolder.PICTURES)
            raise UsageError(f"there is no picture {name!r}", todo=f"choose one of {known}")
        try:
            return Png((self.path / file).read_bytes())
        except FileNotFoundError as error:
            raise PeewitError(
                f"the run {self.path} has no picture {file}",
                "pictures are drawn at the end of training",
            ) from error
        except OSError as error:
            raise cannot_read(self.path / file, error) from error

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status}, {counted(self.epochs, 'epoch')})"


def _preprocessing(path: Path, values: Any) -> Preprocessing:
    """Return the preprocessing stored in ``run.json``."""
    try:
        return Preprocessing.from_dict(values)
    except PeewitError as error:
        raise damaged(path / runfolder.FACTS, f"{error.what}: {error.why}") from error


def _metrics(path: Path, classes: int) -> dict[str, Any]:
    """Return the results of the final test in the run folder ``path``."""
    file = path / runfolder.METRICS
    metrics = read_json(file)
    schema.check_metrics(file, metrics, classes)
    return metrics


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return names for runs: those of their folders, or their paths if names repeat."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
