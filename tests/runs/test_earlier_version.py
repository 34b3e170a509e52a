"""Run folders that version 0.1.0 wrote are opened, predict and are resumed as before.

The archive holds a finished run of a fast network and a run of the tutorial that was interrupted
in the middle of its second epoch, with the logits that version 0.1.0 computed for both, and for
the second one also after resuming it.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import peewit

ARCHIVE = Path(__file__).parents[1] / "golden" / "runs_version_0_1.tar.xz"
# other processors and numbers of threads round differently
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def expected(folder: Path, name: str) -> npt.NDArray[np.float32]:
    with np.load(folder / "expected.npz") as file:
        values: npt.NDArray[np.float32] = file[name]
    return values


def pictures(side: int) -> peewit.Dataset:
    """Return the data that both runs were trained on."""
    random = np.random.default_rng(11)
    labels = np.arange(120) % 3
    images = random.integers(0, 256, (120, side, side, 3), np.uint8)
    images[..., 0] = images[..., 0] // 2 + 60 * labels[:, None, None].astype(np.uint8)
    return peewit.Dataset(images, labels, ["plain", "na\u00efve", "\u732b"])


@pytest.mark.parametrize(
    ("name", "side", "status"),
    [("finished-fast", 8, "finished"), ("interrupted-tutorial", 22, "interrupted")],
)
def test_it_is_opened_and_predicts_the_same(
    folder: Path, name: str, side: int, status: str
) -> None:
    run = peewit.Run.open(folder / name)
    assert run.status == status
    assert run.class_names == ("plain", "na\u00efve", "\u732b")
    logits = run.logits(pictures(side).images[:30])
    np.testing.assert_allclose(logits, expected(folder, name), **TOLERANCE)


def test_a_finished_run_keeps_its_metrics(folder: Path) -> None:
    run = peewit.Run.open(folder / "finished-fast")
    assert run.metrics["accuracy"] == pytest.approx(29 / 30)
    assert run.unsure_below > 0
    data = pictures(8)
    again = peewit.evaluate(run.logits(data.images[:30]), data.labels[:30], run.class_names)
    assert again.accuracy == run.metrics["accuracy"]


def test_an_interrupted_run_is_resumed_from_its_checkpoint(folder: Path) -> None:
    data, path = pictures(22), folder / "interrupted-tutorial"
    test, training = data.take(range(30)), data.take(range(30, 120))
    # earlier versions had no other statistics
    recipe = peewit.Run.open(path).recipe.replace(batch_norm_statistics="moving")
    run = peewit.train(training, recipe, test=test, resume=path, progress=peewit.Callback())
    assert run.status == "finished"
    losses = [row["loss"] for row in run.history]
    np.testing.assert_allclose(losses, expected(folder, "resumed-loss"), rtol=1e-3)
    np.testing.assert_allclose(
        run.logits(test.images), expected(folder, "interrupted-tutorial-resumed"), **TOLERANCE
    )
