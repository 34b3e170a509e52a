"""A Run: the folder that a training leaves, and the object over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError, UsageError
from peewit.evaluation.inference import BATCH, logits_in_batches, second_looks, softmax
from peewit.images.preprocessing import AsTheyAre, Preprocessing
from peewit.runs import folder as runfolder
from peewit.runs import schema as runfields
from peewit.system.files import cannot_read, check_text, damaged
from peewit.system.text import counted, resuming
from peewit.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from peewit.images.reader import Png


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """What is known of a training. It needs nothing but its folder; get one by ``Run.open``.

    Parameters
    ----------
    path : Path
        The folder.
    recipe : Recipe
        How it was trained, with the number of threads (the most, where it counts minutes).
    class_names : tuple of str
        The classes, in the order of the logits.
    preprocessing : Preprocessing
        How pictures become what the model reads.
    history : list of dict
        One row an epoch, or one for several short epochs of a fast recipe: epoch (that has ended,
        or the last one, within which the time was over), seconds (validation included),
        images_per_second (of training), loss, accuracy, validation_loss, validation_accuracy;
        and the totals of images and flops so far, gflops (the rate of the training steps, in
        10**9 operations a second), share_of_best (of this machine's measured best rate).
    metrics : dict
        The numbers of the final test; empty until the run is finished, or if imported until it is
        evaluated. ``metrics["split"]`` is
        "test", or "validation" where there was no test set; ``metrics["temperature_scaling"]``
        says how the model was calibrated, if it was.
    environment : dict
        Versions, processor, threads, command line.
    source : dict
        How to load the data again: source, data, coarse. Empty if the data came from elsewhere.
    dataset : dict
        What the data was: origin, counts, fingerprints.
    status : str
        "running", "interrupted" or "finished"; "imported" if the weights come from another
        program and no epoch has been trained on.
    unsure_below : float
        Pictures whose most probable class has a smaller probability are looked at in six views
        (``peewit.evaluation.inference.second_looks``). 0, for none, until a run whose recipe
        says ``tta`` is finished, and in all others.
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

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read the folder ``path``.

        Raises
        ------
        PeewitError
            It is no run folder, a file is missing or broken, or a newer Peewit wrote it.
        UsageError
            The folder's name is not in UTF-8.
        """
        path = Path(path)
        facts = runfolder.read_facts(path)
        check_text(path)
        check_text(path.resolve().name)  # which reports say, also where the path is "."
        status = runfolder.status(path, facts)
        finished = status == "finished"
        # an imported one may be tested as it is
        tested = finished or (status == "imported" and (path / runfolder.METRICS).is_file())
        recipe = runfolder.read_recipe(path)
        history = runfolder.read_history(path, required=finished)
        # falling rates are not validated after each epoch, but at the end of the last one
        ended = len(history)
        if recipe.schedule == "linear" and history:
            ended = int(history[-1]["epoch"])
        if finished and (ended != recipe.epochs if recipe.by_epochs else not history):
            file = path / runfolder.HISTORY
            asked = f" of {recipe.epochs}" if recipe.by_epochs else ""
            raise damaged(file, f"it has {ended} epochs{asked}")
        try:
            names = facts["class_names"]
            if not isinstance(names, list) or len(names) < 2:
                raise damaged(path / runfolder.FACTS, "it lacks the class names")
            runfields.check_facts(path / runfolder.FACTS, facts)
            return cls(
                path=path,
                recipe=recipe,
                class_names=tuple(str(name) for name in names),
                preprocessing=_preprocessing(path, facts["preprocessing"]),
                history=history,
                metrics=_metrics(path, len(names)) if tested else {},
                environment=facts["environment"],
                source=runfolder.checked_source(path, facts["source"]),
                dataset=facts["dataset"],
                status=status,
                unsure_below=float(facts.get("unsure_below", 0.0)) if finished else 0.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path / runfolder.FACTS, f"it lacks or misstates {error}") from error

    @property
    def epochs(self) -> float:
        """How many times it has gone through the training images.

        A whole number, unless it is trained for minutes or until an accuracy.
        """
        if not self.history:
            return 0
        last, images = self.history[-1], self.dataset.get("images", {}).get("training")
        if self.recipe.by_epochs or not images or "images" not in last:
            return int(last["epoch"])
        return float(last["images"] / images)

    @classmethod
    def find_all(cls, folder: str | Path) -> tuple[list[Run], list[PeewitError]]:
        """Return the runs directly in ``folder`` by name, and what is wrong with broken ones.

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
            if path.name.startswith("."):  # one that is just being made
                continue
            try:
                runs.append(cls.open(path))
            except PeewitError as error:
                broken.append(error)
        return runs, broken

    def model(self) -> nn.Module:
        """Return the network with its trained weights, in evaluation mode: a new one each time.

        Raises
        ------
        PeewitError
            There are no weights yet, or their file is broken or of another model.
        """
        from peewit.models.registry import build
        from peewit.training.checkpoint import load_weights, read_tensors

        file = self.path / runfolder.WEIGHTS
        if not file.is_file() and self.status != "finished":
            raise PeewitError(
                f"the run {self.path} has no weights yet",
                "its first epoch has not ended",
                f"go on with {resuming(self.path)}",
            )
        rule = self.preprocessing
        shape = (rule.height, rule.width, rule.channels)
        network = build(self.recipe.model, shape, len(self.class_names), self.recipe.seed)
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
            How many go through the network at once; a question of memory only.

        Returns
        -------
        float32 array, shape (N, classes)
        """
        return self._answers(self.preprocessing, images, batch_size)

    def logits_of_prepared(
        self, pictures: npt.NDArray[np.float32], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the model's logits for what ``preprocessing.array`` has made of pictures.

        Parameters
        ----------
        pictures : float32 array, shape (N, height, width, C)
        batch_size : int

        Returns
        -------
        float32 array, shape (N, classes)
        """
        return self._answers(AsTheyAre(**asdict(self.preprocessing)), pictures, batch_size)

    def _answers(
        self, rule: Preprocessing, images: npt.NDArray[Any], batch_size: int
    ) -> npt.NDArray[np.float32]:
        network = self._network
        none = np.empty((0, len(self.class_names)), np.float32)
        logits = np.concatenate([none, *logits_in_batches(network, rule, images, batch_size)])
        if self.unsure_below:
            looks = second_looks(
                *(network, rule, images, logits, self.unsure_below, batch_size),
                mirror=self.recipe.flip != "none",
            )
            for chosen, better in looks:
                logits[chosen] = better
        return logits

    def probabilities(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return each class's probability, float32, shape (N, classes); see ``logits``."""
        return softmax(self.logits(images, batch_size))

    def picture(self, name: str) -> Png:
        """Return a picture that the training has left in the folder; a notebook shows it.

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
        from peewit.images.reader import Png  # most of what opens a run needs no Pillow

        file = f"{name}.png"
        if file not in runfolder.PICTURES:
            known = ", ".join(known.removesuffix(".png") for known in runfolder.PICTURES)
            raise UsageError(f"there is no picture {name!r}", todo=f"choose one of {known}")
        try:
            return Png((self.path / file).read_bytes())
        except FileNotFoundError as error:
            raise PeewitError(
                f"the run {self.path} has no picture {file}",
                "pictures are drawn when a training ends",
            ) from error
        except OSError as error:
            raise cannot_read(self.path / file, error) from error

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status}, {counted(self.epochs, 'epoch')})"


def _preprocessing(path: Path, values: Any) -> Preprocessing:
    """Return what ``run.json`` says of how pictures become what the model reads."""
    try:
        return Preprocessing.from_dict(values)
    except PeewitError as error:
        raise damaged(path / runfolder.FACTS, f"{error.what}: {error.why}") from error


def _metrics(path: Path, classes: int) -> dict[str, Any]:
    """Return the numbers of the final test in the folder ``path``."""
    file = path / runfolder.METRICS
    metrics = runfolder.read_json(file)
    runfields.check_metrics(file, metrics, classes)
    return metrics


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return what the runs are called: by their folders' names, or by paths where those agree."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
