"""Trainings on folders of pictures: the same weights however the pictures are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import peewit
from made_pictures import folder_of_pictures
from peewit.__main__ import main
from peewit.data import caches
from peewit.data.packing import at_size, decoding, sizes
from peewit.errors import PeewitError
from peewit.training.budget.benchmark import Machine
from peewit.training.build import build_setup, describe_data
from peewit.training.loop import fit
from peewit.training.resolve import resolve
from peewit.training.state import TrainState

RECIPE = peewit.Recipe.preset(
    "fast", model="fast-xs", epochs=2, image_size=12, batch_size=8, threads=1, tta=False
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with 60 training and 24 test pictures."""
    folder_of_pictures(tmp_path / "pictures" / "train", 20, (14, 18))
    folder_of_pictures(tmp_path / "pictures" / "test", 8, (14, 18), seed=1)
    return tmp_path / "pictures"


def train(folder: Path, out: Path, **options: object) -> peewit.Run:
    data = peewit.load(str(folder))
    return peewit.train(
        data.train,
        RECIPE,
        test=data.test,
        out=out,
        source={"source": str(folder)},
        progress=peewit.Callback(),
        **options,  # type: ignore[arg-type]
    )


def trained(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return weights and facts about the data after an epoch, without a final test."""
    data = peewit.load(str(folder))
    sized = at_size(data.train, 12, 12, "crop", print)
    recipe = resolve(RECIPE, sized, Machine(0.0))
    setup = build_setup(sized, None, recipe, print)
    torch.manual_seed(0)
    fit(setup, TrainState())
    found = {name: value.numpy() for name, value in setup.model.state_dict().items()}
    return found, describe_data(sized, None, setup) | setup.preprocessing.to_dict()


def test_the_weights_do_not_depend_on_where_the_pixels_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, facts = trained(folder)
    cases = [trained(folder)]  # from the cache
    caches.clean(everything=True)
    monkeypatch.setenv(caches.LIMIT, "0")
    cases.append(trained(folder))  # in memory
    monkeypatch.setattr(sizes, "IN_MEMORY", 0)
    cases.append(trained(folder))  # decoded in the background
    for weights, others in cases:
        assert others == facts
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_evaluation_on_the_source_gives_the_recorded_accuracy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(folder, tmp_path / "run")
    assert main(["evaluate", str(run.path)]) == 0
    assert f"{run.metrics['accuracy']:.2%}" in capsys.readouterr().out.splitlines()[0]
    caches.clean(everything=True)
    assert main(["report", str(run.path)]) == 0
    assert "not those that are recorded" not in capsys.readouterr().err


def test_a_picture_removed_before_a_resume_is_named_as_other_data(
    folder: Path, tmp_path: Path
) -> None:
    class Stop(peewit.Callback):
        def should_stop(self) -> bool:
            return True

    with pytest.raises(peewit.Interrupted):
        train(folder, tmp_path / "run", callbacks=[Stop()])
    kept = folder / "train" / "red" / "3.png"
    content = kept.read_bytes()
    kept.unlink()
    data = peewit.load(str(folder))
    with pytest.raises(PeewitError, match=r"1 picture .* \(train/red/3.png\)"):
        peewit.train(
            data.train, test=data.test, resume=tmp_path / "run", progress=peewit.Callback()
        )
    kept.write_bytes(content)
    data = peewit.load(str(folder))
    run = peewit.train(
        data.train, test=data.test, resume=tmp_path / "run", progress=peewit.Callback()
    )
    assert run.status == "finished"


def test_decoding_is_reported_to_callbacks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "INTERVAL", 0)
    shown: list[tuple[int, int]] = []

    class Watch(peewit.Callback):
        def on_decoding(self, progress: decoding.Progress) -> None:
            shown.append((progress.done, progress.total))

        def on_run_folder(self, path: Path) -> None:
            raise peewit.PeewitError("that is enough")

    with pytest.raises(PeewitError, match="enough"):
        train(folder, tmp_path / "run", callbacks=[Watch()])
    assert shown[-1] == (84, 84)


def test_strict_stops_at_a_picture_that_cannot_be_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train" / "red" / "bad.png").write_bytes(b"no picture")
    command = ["train", str(folder), "--recipe", "fast", "--model", "fast-xs", "--epochs", "1"]
    out = tmp_path / "run"
    assert main([*command, "--strict", "--out", str(out)]) == 1
    assert "train/red/bad.png" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--image-size", "12", "--out", str(out)]) == 0
    assert "train/red/bad.png" in capsys.readouterr().err
