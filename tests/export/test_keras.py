"""Keras itself opens Peewit's files, and Peewit imports what Keras saves again."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from made_runs import make_run, pictures
from peewit.errors import PeewitError
from peewit.export import agreement, job
from peewit.export.job import Exported
from peewit.export.operations import Dense
from peewit.importing.keras import import_keras
from peewit.runs.run import Run


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras with the TensorFlow backend."""
    if not find_spec("tensorflow"):
        pytest.skip("needs TensorFlow: pip install 'peewit[tensorflow]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        patch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        import keras
    return keras


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the tutorial's network."""
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def exported(run: Run, keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The run's bare network, as ``.keras`` and ``.h5``."""
    return job.export(run, "keras", raw=True, out=tmp_path_factory.mktemp("bare") / "net.keras")


def file_of(exported: Exported, suffix: str) -> Path:
    (file,) = (file for file in exported.files if file.suffix == suffix)
    return file


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_computes_the_same_logits(
    suffix: str, run: Run, keras: Any, exported: Exported
) -> None:
    file = file_of(exported, suffix)
    found = exported.files[file]
    assert found is not None  # the export was checked by Keras
    assert found.changed == 0
    assert found.difference < 1e-5
    model = keras.models.load_model(file)
    images = pictures(9, 32, 32, 3)
    logits = run.logits(images)
    assert np.abs(logits).max() > 0.1
    theirs = model(run.preprocessing.array(images), training=False)
    np.testing.assert_allclose(theirs, logits, atol=1e-5)
    # Keras's own names, by which the weights are found
    names = [layer.name for layer in model.layers[:3]]
    assert names == ["conv2d", "batch_normalization", "max_pooling2d"]


def test_preprocessing_inside(keras: Any, tmp_path: Path, place: Path) -> None:
    run = make_run(tmp_path / "run", size=24, channels=1)
    done = job.export(run, "keras", out=place / "net.keras")
    assert all(found is not None and found.changed == 0 for found in done.files.values())
    model = keras.models.load_model(place / "net.keras")
    ours = agreement.run_predictor(run)
    for height, width in ((24, 24), (7, 90), (131, 40), (1, 1)):
        images = pictures(2, height, width, 1)
        theirs = model(images.astype(np.float32), training=False)
        np.testing.assert_allclose(theirs, ours(images), atol=1e-4)


def test_files_saved_by_keras_can_be_imported(
    run: Run, keras: Any, exported: Exported, place: Path
) -> None:
    model = keras.models.load_model(file_of(exported, ".keras"))
    # with a loss and an optimiser, as after training
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = pictures(9, 32, 32, 3)
    for suffix in (".keras", ".h5"):
        model.save(place / f"again{suffix}")
        back = import_keras(place / f"again{suffix}", run.class_names, out=place / suffix[1:])
        np.testing.assert_array_equal(back.logits(images), run.logits(images))


def test_a_file_that_disagrees_is_not_kept(
    run: Run, keras: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = job.operations_of

    def swapped(model: object) -> list[object]:
        found = original(model)  # type: ignore[arg-type]
        last = found[-1]
        assert isinstance(last, Dense)
        return [*found[:-1], Dense(last.weight[[1, 0, 2]], last.bias)]

    monkeypatch.setattr(job, "operations_of", swapped)
    with pytest.raises(PeewitError, match="does not agree with the run"):
        job.export(run, "keras", out=place / "net.keras")
    assert list(place.iterdir()) == []


def test_the_export_of_keras_3_has_no_layers(keras: Any, place: Path) -> None:
    layers = [keras.layers.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential(layers).export(str(place / "saved"), verbose=False)
    with pytest.raises(PeewitError, match=r"model\.export.*model\.save"):
        import_keras(place / "saved", ["a", "b"], out=place / "run")
    assert not (place / "run").exists()
