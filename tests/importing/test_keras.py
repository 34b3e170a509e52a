from __future__ import annotations

from pathlib import Path

import peewit
from peewit.importing.keras import import_keras


def test_a_model_of_tensorflow_has_the_accuracy_that_tensorflow_measured(
    keras_h5: Path, archive: Path, tmp_path: Path
) -> None:
    test = peewit.load(str(archive)).test
    assert test is not None
    run = import_keras(keras_h5, test.class_names, out=tmp_path / "run")
    result = peewit.evaluate(run.logits(test.images), test.labels, run.class_names)
    assert round(result.accuracy, 4) == 0.7109
    assert round(result.loss, 4) == 0.8278
    assert run.status == "imported"
