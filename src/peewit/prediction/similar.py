"""The training images most similar to a picture, in the features of a run's network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from peewit.data.dataset import Dataset
from peewit.data.packing.decoding import Progress
from peewit.data.store import prefetch
from peewit.evaluation.inference import BATCH
from peewit.evaluation.temperature import head
from peewit.models import pretrained
from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.models.encoders.network import EncoderNetwork
from peewit.system.text import printable
from peewit.transfer.engine import fastest
from peewit.transfer.features import Features

if TYPE_CHECKING:
    from peewit.runs.run import Run

Floats = npt.NDArray[np.float32]
# Standard deviations below this are of features that do not vary
CONSTANT = 1e-6


def last_features(run: Run) -> Callable[[npt.NDArray[np.uint8]], Floats]:
    """Return a function that computes the input of the last layer of a run's network.

    Returns
    -------
    callable
        uint8 images (n, H, W, C) of the network's input size -> float32 (n, features).
    """
    network, rule = run.model(), run.preprocessing
    if isinstance(network, EfficientNetLite):
        return fastest(network, rule)
    kept: list[torch.Tensor] = []
    head(network).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))

    def features(images: npt.NDArray[np.uint8]) -> Floats:
        kept.clear()
        with torch.inference_mode():
            network(rule.tensor(images))
        found: Floats = kept[0].numpy()
        return found

    return features


@dataclass(frozen=True)
class Neighbour:
    """A training image that is similar to a picture.

    Attributes
    ----------
    index : int
        Its number in the training set.
    name : str
        Of its file, or "image 7" if it has none.
    label : str
        Its class.
    similarity : float
        Cosine similarity of the standardised features, -1 to 1.
    """

    index: int
    name: str
    label: str
    similarity: float

    def __str__(self) -> str:
        return printable(f"{self.similarity:6.3f}  {self.label}  {self.name}")

    def to_dict(self) -> dict[str, Any]:
        """Return name, class and similarity, ready for JSON."""
        return {"name": self.name, "class": self.label, "similarity": self.similarity}


class SimilarImages:
    """Finds the training images most similar to pictures.

    The features of all training images are computed first, unless they are cached: those of a
    pretrained network that was not fine-tuned.

    Parameters
    ----------
    run : Run
        With weights.
    training : Dataset
        Its training images, decoded at the input size of its network.
    show : callable
        Called with the progress after each batch.
    """

    def __init__(
        self, run: Run, training: Dataset, show: Callable[[Progress], None] = lambda progress: None
    ) -> None:
        self.training, self._features = training, last_features(run)
        tuned = run.recipe.start != "pretrained" or any(row["epoch"] for row in run.history)
        network = run.model()
        encoder = network.encoder if isinstance(network, EncoderNetwork) else None
        if not tuned and (encoder is not None or pretrained.available(run.recipe.model)):
            features = Features(run.recipe.model, run.preprocessing, show, encoder).of(training)
        else:
            features = self._of_all(show)
        self._mean, scale = features.mean(0), features.std(0)
        self._scale = np.where(scale < CONSTANT, np.float32(1), scale)
        self._units = self._directions(features)

    def of(self, images: npt.NDArray[np.uint8], count: int) -> list[list[Neighbour]]:
        """Return the ``count`` nearest training images of each image, the most similar one first.

        Parameters
        ----------
        images : uint8 array, shape (n, H, W, C)
            Of the network's input size.
        count : int
        """
        similarity = self._directions(self._features(images)) @ self._units.T
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        return [
            [self._neighbour(index, float(row[index])) for index in best]
            for row, best in zip(similarity, order.tolist(), strict=True)
        ]

    def _of_all(self, show: Callable[[Progress], None]) -> Floats:
        images, rows = self.training.images, np.arange(len(self.training))
        progress, parts = Progress(0, len(rows), what="computing features of"), []
        for start in range(0, len(rows), BATCH):
            prefetch(images, rows[start + BATCH : start + 2 * BATCH])
            parts.append(self._features(images[rows[start : start + BATCH]]))
            progress.done += len(parts[-1])
            show(progress)
        return np.concatenate(parts)

    def _directions(self, features: Floats) -> Floats:
        x = (features - self._mean) / self._scale
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
        units: Floats = x / np.maximum(lengths, np.float32(CONSTANT))
        return units

    def _neighbour(self, index: int, similarity: float) -> Neighbour:
        data = self.training
        name = f"image {index}" if data.names is None else str(data.names[index])
        return Neighbour(index, name, data.class_names[data.labels[index]], similarity)
