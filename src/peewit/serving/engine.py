"""The network: from picture files to class probabilities and heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.gradcam import heat_maps
from peewit.evaluation.inference import BATCH
from peewit.images.scaled import probe
from peewit.prediction.engines import fastest
from peewit.prediction.rejecting import Rejector
from peewit.serving.body import Upload

if TYPE_CHECKING:
    from peewit.runs.run import Run

# Up to this many pictures go to the engine with the lowest latency for one. For fast-s, 1 and 2
# pictures take ONNX Runtime 2.5 and 4.9 ms, and PyTorch 6.2 and 7.4 ms; 4 pictures take either of
# them 9 ms; 8 pictures take ONNX Runtime 19 ms and PyTorch 13 ms.
SMALL_BATCH = 2


@dataclass(frozen=True)
class Prepared:
    """A picture at the network's input size.

    Attributes
    ----------
    pixels : uint8 array, shape (H, W, C)
    width, height : int
        Size of the file's picture.
    explain : bool
        Whether a heat map is requested.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    explain: bool


@dataclass(frozen=True)
class Output:
    """The network's output for one picture.

    Attributes
    ----------
    probabilities : float32 array, shape (classes,)
    heat : float32 array, shape (H, W), or None
        Heat map for the most probable class, 0 to 1, at the network's input size.
    rejected : bool or None
        Whether it is probably a picture of none of the classes; None if the run has no threshold.
    """

    probabilities: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32] | None
    rejected: bool | None


class Engine:
    """A Run's network, ready for requests.

    Attributes
    ----------
    batch : int
        Largest batch for ``classify``.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        rule = run.preprocessing
        self._network = run.model()
        self._reject = Rejector(run) if "rejection" in run.metrics else None
        self._fast, self._one = fastest(run, BATCH), fastest(run, 1)
        # One thread calls the engine with large batches, and the engine splits them among its
        # streams: 896 pictures/s with 8 clients and 64 pictures per request, where two threads with
        # half as many each reached 800.
        self.batch = self._fast.piece * self._fast.streams if self._fast.streams > 1 else BATCH
        # warm up: the first call is slower than the following ones
        for engine in (self._fast, self._one):
            engine.probabilities(np.zeros((1, rule.height, rule.width, rule.channels), np.uint8))

    def prepare(self, upload: Upload, explain: bool, limit: int) -> Prepared:
        """Decode a picture at the network's input size.

        Parameters
        ----------
        upload : Upload
        explain : bool
            Whether a heat map is requested.
        limit : int
            Pixels that the file may declare.

        Raises
        ------
        TooManyPixels
            The file declares more than ``limit`` pixels; nothing was decoded.
        PeewitError
            The file cannot be read.
        """
        size = probe(upload.content, upload.name)
        pixels = self._fast.read(upload.content, upload.name, limit)
        return Prepared(pixels, size.width, size.height, explain)

    def classify(self, pictures: Sequence[Prepared]) -> list[Output]:
        """Return the network's output for a batch. Not for several threads at a time."""
        images = np.stack([picture.pixels for picture in pictures])
        engine = self._one if len(images) <= SMALL_BATCH else self._fast
        rows = engine.probabilities(images)
        rejected = self._reject(images, rows) if self._reject else [None] * len(images)
        explained = [i for i, picture in enumerate(pictures) if picture.explain]
        heat = dict(zip(explained, self._heat(images, rows, explained), strict=True))
        return [Output(rows[i], heat.get(i), rejected[i]) for i in range(len(rows))]

    def _heat(
        self, images: npt.NDArray[np.uint8], rows: npt.NDArray[np.float32], indices: list[int]
    ) -> Iterator[npt.NDArray[np.float32] | None]:
        """Yield the heat map of each picture of ``indices`` for its most probable class."""
        if not indices:
            return
        classes, prepare = rows[indices].argmax(1), self.run.preprocessing.tensor
        try:
            yield from heat_maps(self._network, prepare, images[indices], classes)
        except PeewitError:  # this network has no spatial feature map
            yield from [None] * len(indices)
