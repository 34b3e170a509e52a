"""Reject pictures that are of none of the classes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.runs import folder as runfolder

if TYPE_CHECKING:
    from peewit.runs.run import Run

Floats = npt.NDArray[np.float32]


class Rejector:
    """Tells which pictures are of none of the classes.

    With a pretrained network whose last layer alone was fitted, by the relative Mahalanobis
    distance of the features, which are computed by the fastest engine for them. Between six sets of
    photographs that accepts 11 % of the strangers instead of 70 % (``benchmarks/strangers.py``).
    With other networks, by the probability of the most probable class.

    Parameters
    ----------
    run : Run

    Raises
    ------
    PeewitError
        The run has no threshold, or its file of distances is missing or damaged.
    """

    def __init__(self, run: Run) -> None:
        self._reject_below = run.reject_below
        rule = run.metrics["rejection"].get("by_features")
        self.by_features = rule is not None
        if rule is None:
            return
        from peewit.evaluation.distance import ClassDistances
        from peewit.prediction.similar import last_features
        from peewit.system.files import damaged
        from peewit.training.checkpoint import read_tensors

        file = run.path / runfolder.DISTANCES
        tensors = {name: one.numpy() for name, one in read_tensors(file)[0].items()}
        try:
            self._distances = ClassDistances.from_tensors(tensors)
        except ValueError as error:
            raise damaged(file, str(error)) from error
        self._features, self._threshold = last_features(run), rule["threshold"]

    def __call__(self, images: npt.NDArray[np.uint8], probabilities: Floats) -> list[bool]:
        """Return whether each image is rejected.

        Parameters
        ----------
        images : uint8 array, shape (N, H, W, C)
            Of the network's input size.
        probabilities : float32 array, shape (N, classes)
        """
        if self.by_features:
            rejected = self._distances.scores(self._features(images)) < self._threshold
        else:
            rejected = probabilities.max(axis=1) < self._reject_below
        found: list[bool] = rejected.tolist()
        return found
