"""From picture files to answers: decoding, in several threads, and computing, in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.inference import softmax
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
    pixels : float32 array, shape (H, W, C)
        In the network's size and scale.
    width, height : int
        The size that it came in.
    explain : bool
        Whether a heat map is wanted.
    """

    pixels: npt.NDArray[np.float32]
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
        self._network = run.model()
        self._one_large = Semaphore()

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
        height, width = image.shape[:2]
        tensor = self.run.preprocessing.tensor(image[None])
        # (1, C, H, W) -> (H, W, C), the same memory
        return Prepared(tensor[0].permute(1, 2, 0).numpy(), width, height, explain)

    def answer(self, pictures: Sequence[Prepared]) -> list[Answer]:
        """Put pictures through the network together."""
        import torch

        nhwc = np.stack([picture.pixels for picture in pictures])
        with torch.inference_mode():
            # (N, H, W, C) -> (N, C, H, W) in channels_last, the same memory
            logits = self._network(torch.from_numpy(nhwc).permute(0, 3, 1, 2)).numpy()
        probabilities = softmax(logits)
        heat: dict[int, npt.NDArray[np.float32]] = {}
        wanted = [index for index, picture in enumerate(pictures) if picture.explain]
        if wanted:
            heat = dict(zip(wanted, self._heat(nhwc[wanted], logits[wanted]), strict=False))
        return [Answer(row, heat.get(index)) for index, row in enumerate(probabilities)]

    def _heat(
        self, nhwc: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        rule = self.run.preprocessing
        images = (nhwc * np.array(rule.std, np.float32) + np.array(rule.mean, np.float32)) * 255
        whole = np.rint(images).clip(0, 255).astype(np.uint8)
        try:
            return heat_maps(self._network, rule, whole, logits.argmax(axis=1))
        except PeewitError:  # no layer of this network keeps places apart
            return np.empty((0, *nhwc.shape[1:3]), np.float32)
