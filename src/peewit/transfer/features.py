"""The features of data sets, each computed once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.packing.decoding import Progress
from peewit.data.store import prefetch
from peewit.images.preprocessing import Preprocessing
from peewit.models.efficientnet_lite import FEATURES, EfficientNetLite
from peewit.models.encoders.encoder import Encoder
from peewit.models.pretrained import PACKAGES, load_weights
from peewit.models.registry import build
from peewit.transfer.cache import FeatureCache
from peewit.transfer.engine import BATCH, Engine, engine_name, fastest

Floats = npt.NDArray[np.float32]
SAVED_EVERY = 10.0  # seconds: what a killed process loses at most


@dataclass
class Features:
    """Computes the features of data sets by a pretrained network, unless they are cached.

    Parameters
    ----------
    name : str
        Of the network.
    rule : Preprocessing
        Of the network's input.
    show : callable
        Called several times a second with the progress; may raise.
    encoder : Encoder, optional
        The network, if it is a backbone.
    """

    name: str
    rule: Preprocessing
    show: Callable[[Progress], None] = lambda progress: None
    encoder: Encoder | None = None

    @cached_property
    def _engine(self) -> Engine:
        """Compiling it takes a second, which is only needed for pictures that are not cached."""
        if (encoder := self.encoder) is not None:
            return lambda pictures: encoder.features(self.rule.array(pictures))
        shape = (self.rule.height, self.rule.width, self.rule.channels)
        network = build(self.name, shape, 2, seed=0).eval()
        assert isinstance(network, EfficientNetLite)
        load_weights(network, self.name)
        return fastest(network, self.rule)

    @cached_property
    def _cache(self) -> FeatureCache:
        if (encoder := self.encoder) is not None:
            return FeatureCache(f"backbone-{self._identity(encoder)}", encoder.width)
        weights, size = PACKAGES[self.name].sha256[:8], f"{self.rule.height}x{self.rule.width}"
        return FeatureCache(f"{self.name}-{weights}-{size}-{engine_name()}", FEATURES)

    def _identity(self, encoder: Encoder) -> str:
        """Return a hash of everything that the features depend on besides the pixels."""
        known = encoder.contents
        parts = (known.sha256, known.output, encoder.pooling, encoder.engine, self.rule.to_dict())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def of(self, dataset: Dataset) -> Floats:
        """Return the features of all images, float32, (N, features)."""
        hashes = dataset.image_hashes
        missing = np.flatnonzero(~self._cache.known(hashes))
        _, first = np.unique(hashes[missing], return_index=True)
        self._compute(dataset, missing[np.sort(first)])
        return self._cache.get(hashes)

    def _compute(self, dataset: Dataset, missing: npt.NDArray[np.int64]) -> None:
        """Compute and cache the features of the images with the numbers ``missing``."""
        progress = Progress(0, len(missing), what="computing features of")
        pending: list[Floats] = []
        saved, began = 0, time.monotonic()
        try:
            for start in range(0, len(missing), BATCH):
                chosen = missing[start : start + BATCH]
                # the next images, if they have to be decoded
                prefetch(dataset.images, missing[start + BATCH : start + 2 * BATCH])
                pending.append(self._engine(dataset.images[chosen]))
                progress.done = start + len(chosen)
                if time.monotonic() - began > SAVED_EVERY:
                    saved, began = self._save(dataset, missing, saved, pending), time.monotonic()
                self.show(progress)
        finally:
            self._save(dataset, missing, saved, pending)

    def _save(
        self, dataset: Dataset, missing: npt.NDArray[np.int64], first: int, pending: list[Floats]
    ) -> int:
        """Cache the features ``pending`` from the picture ``first`` on; return the next one."""
        if not pending:
            return first
        features = np.concatenate(pending)
        pending.clear()
        end = first + len(features)
        self._cache.add(dataset.image_hashes[missing[first:end]], features)
        return end
