"""What computes a Run's answers: PyTorch, or a faster runtime where one is installed."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from peewit.inference import BATCH
from peewit.run import Run


class Engine(Protocol):
    """Something that gives a Run's answers."""

    @property
    def name(self) -> str:
        """What it is: PyTorch, ONNX Runtime, OpenVINO."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        ...

    def logits(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the logits of uint8 images (N, H, W, C) of any size: float32 (N, classes)."""
        ...

    def probabilities(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return each class's probability, float32 (N, classes)."""
        ...


class Torch:
    """PyTorch, which trained it: the answers that all others must agree with."""

    name = "PyTorch"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.class_names = run.class_names

    def logits(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return the logits of ``images``."""
        return self.run.logits(images, batch_size)

    def probabilities(
        self, images: npt.NDArray[np.uint8], batch_size: int = BATCH
    ) -> npt.NDArray[np.float32]:
        """Return each class's probability."""
        return self.run.probabilities(images, batch_size)


def fastest(run: Run, batch_size: int = BATCH) -> Engine:
    """Return the engine that gives ``run``'s answers soonest, ``batch_size`` pictures at a time."""
    return Torch(run)
