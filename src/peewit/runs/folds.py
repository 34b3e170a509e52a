"""The out-of-fold predictions of a cross-validation, in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

from peewit.runs.folder import FOLDS
from peewit.system.files import damaged
from peewit.system.validation import Quantity, Share, validated
from peewit.training import checkpoint

Logits = npt.NDArray[np.float32]
# A fold's validation loss and accuracy at shares of its training: [share, loss, accuracy]
Curve = list[list[float]]


class _FoldsInFile(TypedDict):
    spent: Quantity
    accuracies: list[Share]
    curves: list[Curve]


@dataclass
class FoldResults:
    """The out-of-fold predictions of a cross-validation, as far as it has come.

    Parameters
    ----------
    logits, single : float32 array, shape (N, classes)
        Of each image by the network of its fold, with test-time augmentation and without.
    spent : float
        Seconds of the finished folds.
    accuracies : list of float
        Of the finished folds.
    curves : list of list of [share, loss, accuracy]
        The validations of each finished fold, and at which share of its training they were.
    """

    logits: Logits
    single: Logits
    spent: float = 0.0
    accuracies: list[float] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, images: int, classes: int) -> FoldResults:
        """Return the results in the run folder ``path``; without a file, none yet.

        Raises
        ------
        PeewitError
            The file is damaged, or of other images.
        """
        file = path / FOLDS
        if not file.is_file():
            none = np.zeros((images, classes), np.float32)
            return cls(none, none.copy())
        tensors, metadata = checkpoint.read_tensors(file)
        try:
            facts = validated(file, json.loads(metadata["peewit"]), _FoldsInFile)
            logits, single = tensors["logits"].numpy(), tensors["single"].numpy()
        except (KeyError, ValueError) as error:
            raise damaged(file, "it has no out-of-fold predictions") from error
        shapes = {(*one.shape, one.dtype.str) for one in (logits, single)}
        if shapes != {(images, classes, np.dtype(np.float32).str)}:
            raise damaged(file, "its predictions are of other images")
        return cls(logits, single, facts["spent"], facts["accuracies"], facts["curves"])

    def write(self, path: Path) -> None:
        """Write the results into the run folder ``path``."""
        facts = {"spent": self.spent, "accuracies": self.accuracies, "curves": self.curves}
        tensors = {"logits": torch.from_numpy(self.logits), "single": torch.from_numpy(self.single)}
        checkpoint.write_tensors(path / FOLDS, tensors, {"peewit": json.dumps(facts)})

    def validation_at(self, share: float) -> tuple[float, float]:
        """Return the mean validation loss and accuracy of the folds at a share of the training."""
        loss, accuracy = (
            float(
                np.mean(
                    [
                        np.interp(share, [row[0] for row in curve], [row[column] for row in curve])
                        for curve in self.curves
                    ]
                )
            )
            for column in (1, 2)
        )
        return loss, accuracy
