"""From picture files to answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.evaluation.gradcam import heat_maps
from peewit.evaluation.inference import BATCH
from peewit.images.preprocessing import AsTheyAre
from peewit.images.reader import read_picture
from peewit.prediction.engines import fastest
from peewit.serving.body import Upload

if TYPE_CHECKING:
    from peewit.runs.run import Run

# So many pictures are answered by what answers one soonest: of fast-s by ONNX Runtime in 2.5 and
# 4.9 ms where PyTorch takes 6.2 and 7.4; 4 take either 9 ms, and 8 take 19 there and here 13.
FEW = 2


@dataclass(frozen=True)
class Prepared:
    """A picture in the network's size.

    Attributes
    ----------
    pixels : array, shape (H, W, C)
        uint8, as it came, where it came in that size and no heat map is wanted; else float32, in
        the network's scale.
    width, height : int
        The size that it came in.
    explain : bool
        Whether a heat map is wanted.
    """

    pixels: npt.NDArray[Any]
    width: int
    height: int
    explain: bool


@dataclass(frozen=True)
class Answer:
    """What the network says of a picture.

    Attributes
    ----------
    probabilities : float32 array, shape (classes,)
    heat : float32 array, shape (H, W), or None
        Where it looked, 0 to 1, in the network's size.
    """

    probabilities: npt.NDArray[np.float32]
    heat: npt.NDArray[np.float32] | None


class Engine:
    """A Run's network, ready to answer.

    Attributes
    ----------
    batch : int
        With how many pictures ``answer`` should be called at most.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        # what is seen inside of the network is kept in the network
        self._one_look = Lock()
        rule = run.preprocessing
        self._as_they_are = AsTheyAre(**asdict(rule))
        self._network = run.model()
        self._fast, self._one = fastest(run, BATCH), fastest(run, 1)
        # for one thread that asks: the engine shares them out itself, and two threads with half as
        # many each take longer (64 pictures a request, 8 clients: 896 a second instead of 800)
        self.batch = self._fast.piece * self._fast.streams if self._fast.streams > 1 else BATCH
        # the first answer takes longer than those after it: not at a client's cost
        for engine in (self._fast, self._one):
            engine.probabilities(np.zeros((1, rule.height, rule.width, rule.channels), np.uint8))

    def prepare(self, upload: Upload, explain: bool, limit: int) -> Prepared:
        """Decode a picture and make it what the network reads.

        Parameters
        ----------
        upload : Upload
        explain : bool
            Whether a heat map is wanted.
        limit : int
            Pixels that it may declare.

        Raises
        ------
        PeewitError
            It cannot be read.
        """
        image = read_picture(upload.content, upload.name, limit=limit)
        height, width = image.shape[:2]
        # here, because a photograph would keep a thread that computes busy for a while, and
        # because many of them at full size would not fit in the memory
        pixels = self._fast.prepare(image)
        if explain and pixels.dtype == np.uint8:
            pixels = self.run.preprocessing.array(image[None])[0]
        return Prepared(pixels, width, height, explain)

    def answer(self, pictures: Sequence[Prepared]) -> list[Answer]:
        """Put pictures through the network together."""
        rows = np.empty((len(pictures), len(self.run.class_names)), np.float32)
        for kind in (np.uint8, np.float32):
            places = [at for at, picture in enumerate(pictures) if picture.pixels.dtype == kind]
            if places:
                images = np.stack([pictures[at].pixels for at in places])
                engine = self._one if len(places) <= FEW else self._fast
                rows[places] = engine.probabilities(images)
        explained = [at for at, picture in enumerate(pictures) if picture.explain]
        heat = dict(zip(explained, self._heat(pictures, rows, explained), strict=True))
        return [Answer(row, heat.get(at)) for at, row in enumerate(rows)]

    def _heat(
        self, pictures: Sequence[Prepared], rows: npt.NDArray[np.float32], places: list[int]
    ) -> Iterator[npt.NDArray[np.float32] | None]:
        """Give where the network looked for its first answer in each picture of ``places``."""
        if not places:
            return
        images: npt.NDArray[Any] = np.stack([pictures[at].pixels for at in places])
        classes = rows[places].argmax(1)
        try:
            with self._one_look:
                maps = heat_maps(self._network, self._as_they_are, images, classes)
            yield from maps
        except PeewitError:  # no layer of this network keeps places apart
            yield from [None] * len(places)
