"""From picture files to answers: decoding, in several threads, and computing, in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peewit.engines import fastest
from peewit.errors import PeewitError
from peewit.inference import BATCH, softmax
from peewit.pictures import read_picture
from peewit.saliency import heat_maps
from peewit.serving.body import Upload
from peewit.serving.limits import Limits

if TYPE_CHECKING:
    from peewit.run import Run

# A picture of 50 megapixels takes 750 MB while it is made small: one of that kind at a time
LARGE_FILE = 1_000_000


@dataclass(frozen=True)
class Prepared:
    """A picture as the network reads it.

    Attributes
    ----------
    pixels : uint8 or float32 array, shape (H, W, C)
        In the network's size: as it came, where it came in that size; else in its scale, too.
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
    """A Run's network, ready to answer."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.run = run
        self._pixels = limits.pixels
        self._fast = fastest(run, BATCH)
        self._network = run.model()
        self._one_large = Semaphore()
        # the first answer of an engine takes longer than those after it: not at a client's cost
        rule = run.preprocessing
        self._fast.probabilities(np.zeros((1, rule.height, rule.width, rule.channels), np.uint8))

    def prepare(self, uploads: Sequence[Upload], explain: bool) -> list[Prepared | PeewitError]:
        """Decode pictures and make them what the network reads; an error stands in its place."""
        return [self._prepare(upload, explain) for upload in uploads]

    def _prepare(self, upload: Upload, explain: bool) -> Prepared | PeewitError:
        if len(upload.content) > LARGE_FILE:
            with self._one_large:
                return self._decode(upload, explain)
        return self._decode(upload, explain)

    def _decode(self, upload: Upload, explain: bool) -> Prepared | PeewitError:
        try:
            image = read_picture(upload.content, upload.name, limit=self._pixels)
        except PeewitError as error:
            return error
        rule = self.run.preprocessing
        height, width = image.shape[:2]
        if image.shape == (rule.height, rule.width, rule.channels):
            return Prepared(image, width, height, explain)
        # here, because a photograph would keep the thread that computes busy for a while, and
        # because many of them at full size would not fit in the memory
        tensor = rule.tensor(image[None])
        # (1, C, H, W) -> (H, W, C), the same memory
        return Prepared(tensor[0].permute(1, 2, 0).numpy(), width, height, explain)

    def answer(self, pictures: Sequence[Prepared]) -> list[Answer]:
        """Put pictures through the network together."""
        rows: list[Any] = [None] * len(pictures)
        for kind, compute in ((np.uint8, self._fast.probabilities), (np.float32, self._scaled)):
            places = [at for at, picture in enumerate(pictures) if picture.pixels.dtype == kind]
            if places:
                together = compute(np.stack([pictures[at].pixels for at in places]))
                for at, row in zip(places, together, strict=True):
                    rows[at] = row
        heat = self._heat([picture.pixels for picture in pictures if picture.explain])
        return [
            Answer(row, next(heat) if picture.explain else None)
            for picture, row in zip(pictures, rows, strict=True)
        ]

    def _scaled(self, nhwc: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the probabilities of pictures that are in the network's scale."""
        import torch

        with torch.inference_mode():
            # (N, H, W, C) -> (N, C, H, W) in channels_last, the same memory
            return softmax(self._network(torch.from_numpy(nhwc).permute(0, 3, 1, 2)).numpy())

    def _heat(
        self, pictures: Sequence[npt.NDArray[Any]]
    ) -> Iterator[npt.NDArray[np.float32] | None]:
        """Give where the network looked in each picture for its first answer."""
        if not pictures:
            return iter(())
        images = np.stack([self._whole(pixels) for pixels in pictures])
        try:
            return iter(heat_maps(self._network, self.run.preprocessing, images))
        except PeewitError:  # no layer of this network keeps places apart
            return iter([None] * len(pictures))

    def _whole(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return uint8 pixels: 1/2 of a step off at most, which no heat map shows."""
        if pixels.dtype == np.uint8:
            return pixels
        rule = self.run.preprocessing
        values = (pixels * np.array(rule.std) + np.array(rule.mean)) * 255
        return np.asarray(np.rint(values).clip(0, 255), dtype=np.uint8)
