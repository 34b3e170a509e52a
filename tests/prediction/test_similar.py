"""Similar training images: an image is the most similar to itself, by its file name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from made_runs import make_run, pictures
from peewit.data.dataset import Dataset
from peewit.data.packing.decoding import Progress
from peewit.evaluation.temperature import head
from peewit.prediction.similar import SimilarImages, last_features


@pytest.mark.parametrize("name", ["tutorial", "fast-xs"])
def test_the_last_layer_of_the_features_gives_the_logits(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", name)
    images = pictures(3, 32, 32, 3)
    features, last = last_features(run)(images), head(run.model())
    logits = features @ last.weight.detach().numpy().T
    if last.bias is not None:
        logits += last.bias.detach().numpy()
    scale = run.logits(images).std() / logits.std()  # the fast networks scale their logits
    np.testing.assert_allclose(logits * scale, run.logits(images), rtol=1e-3, atol=1e-4)


def test_an_image_is_most_similar_to_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "fast-xs")
    images = pictures(70, 32, 32, 3)
    labels = np.arange(70) % 3
    names = np.array([f"{number}.png" for number in range(70)])
    dataset = Dataset(images, labels, run.class_names, "made up", names=names)
    seen: list[Progress] = []
    index = SimilarImages(run, dataset, lambda one: seen.append(dataclasses.replace(one)))
    assert [one.done for one in seen] == [64, 70]
    found = index.of(images[[68, 5]], 4)
    assert [row[0].name for row in found] == ["68.png", "5.png"]
    assert found[0][0].label == run.class_names[68 % 3]
    for row in found:
        assert row[0].similarity == pytest.approx(1, abs=1e-5)
        assert [one.similarity for one in row] == sorted(
            (one.similarity for one in row), reverse=True
        )
        assert len(row) == 4
