"""A run folder gives everything back, and what is wrong with one is said with the file's name."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from peewit.__main__ import main
from peewit.errors import PeewitError, UsageError
from peewit.evaluation.metrics import evaluate
from peewit.images.preprocessing import Preprocessing
from peewit.models.registry import build
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training.checkpoint import write_tensors
from peewit.training.recipe import Recipe

NAMES = ("dark", "middle", "größte")
ROW = {
    "epoch": 1,
    "seconds": 1 / 3,
    "images_per_second": 1234.5,
    "loss": 0.1 + 0.2,
    "accuracy": 0.5,
    "validation_loss": 2 / 3,
    "validation_accuracy": 0.25,
}
RECIPE = Recipe(epochs=2, threads=1, seed=3)
RULE = Preprocessing(22, 22, 3, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run whose weights are the model's first ones."""
    return finished(tmp_path / "runs" / "one", RECIPE)


def finished(path: Path, recipe: Recipe) -> Path:
    facts = {
        "class_names": NAMES,
        "preprocessing": RULE.to_dict(),
        "source": {"source": "cifar10", "data": None, "coarse": False},
        "dataset": {"origin": "made up"},
        "environment": {"torch": torch.__version__},
    }
    runfolder.create(path, facts, recipe)
    write_tensors(path / runfolder.WEIGHTS, build(recipe.model, (22, 22, 3), 3, 3).state_dict(), {})
    runfolder.write_history(path, [ROW, ROW | {"epoch": 2}])
    result = evaluate(np.eye(3)[[0] * 8], [0, 0, 1, 1, 1, 1, 2, 2], NAMES)
    runfolder.write_metrics(path, {"split": "test", **result.to_dict()})
    runfolder.write_finished(path, True)
    return path


def test_opening_gives_everything_back(folder: Path) -> None:
    run = Run.open(str(folder))
    assert run.path == folder
    assert run.recipe == RECIPE
    assert run.class_names == NAMES
    assert run.preprocessing == RULE
    assert run.history == [ROW, ROW | {"epoch": 2}]  # the same floats, bit for bit
    assert isinstance(run.history[0]["epoch"], int)
    assert run.metrics["accuracy"] == 0.25
    assert run.environment == {"torch": torch.__version__}
    assert run.source == {"source": "cifar10", "data": None, "coarse": False}
    assert run.dataset == {"origin": "made up"}
    assert run.status == "finished"
    assert repr(run) == f"Run({str(folder)!r}, finished, 2 epochs)"


def test_logits_are_the_models_in_any_batch_size_and_for_any_size_of_picture(folder: Path) -> None:
    run = Run.open(folder)
    images = np.random.default_rng(0).integers(0, 256, (5, 22, 22, 3), dtype=np.uint8)
    model = run.model()
    assert not model.training
    with torch.no_grad():
        expected = model(RULE.tensor(images)).numpy()
    logits = run.logits(images)
    assert (logits.shape, logits.dtype) == ((5, 3), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    np.testing.assert_allclose(run.logits(images, batch_size=2), expected, rtol=1e-4, atol=1e-6)
    assert run.logits(np.zeros((2, 50, 30, 1), np.uint8)).shape == (2, 3)
    assert run.logits(images[:0]).shape == (0, 3)


def test_probabilities_are_the_softmax_of_the_logits(folder: Path) -> None:
    run = Run.open(folder)
    images = np.random.default_rng(0).integers(0, 256, (4, 22, 22, 3), dtype=np.uint8)
    expected = torch.tensor(run.logits(images)).softmax(1).numpy()
    np.testing.assert_allclose(run.probabilities(images), expected, rtol=1e-5)
    assert run.probabilities(images[:0]).shape == (0, 3)


def test_each_model_is_a_new_one(folder: Path) -> None:
    run = Run.open(folder)
    one, other = run.model(), run.model()
    assert one is not other
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert next(other.parameters()).abs().max() > 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def change(name: str, value: object) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return work


@pytest.mark.parametrize(
    ("name", "spoil", "sentence"),
    [
        ("run.json", Path.unlink, r"one is not a run folder: it has no run\.json"),
        ("run.json", cut, r"cannot read .*run\.json: it is not whole JSON"),
        (
            "run.json",
            lambda path: path.write_bytes(b"\xff\x00"),
            r"run\.json: it is not whole JSON",
        ),
        ("run.json", lambda path: path.write_text("[1]"), r"run\.json: it is not a JSON object"),
        ("run.json", lambda path: path.write_text("[" * 9999), r"run\.json: it is not whole JSON"),
        ("run.json", change("format", 2), r"run\.json: a newer Peewit wrote it \(format 2, this"),
        ("run.json", change("format", "x"), r"run\.json: it has no format version"),
        ("run.json", lambda path: path.write_text("{}"), "it has no format version"),
        ("run.json", lambda path: path.write_text('{"format": 1}'), "it lacks or misstates"),
        ("run.json", change("class_names", 3), r"run\.json: it lacks the class names"),
        ("run.json", change("class_names", []), r"run\.json: it lacks the class names"),
        (
            "run.json",
            change("preprocessing", {"height": 1}),
            r"run\.json: .*is not a preprocessing",
        ),
        (
            "run.json",
            change(
                "preprocessing", {"height": -1, "width": 1, "channels": 1, "mean": [0], "std": [1]}
            ),
            r"cannot read .*run\.json: .* height and width are not both at least 1",
        ),
        ("run.json", change("preprocessing", 3), r"run\.json: it lacks or misstates"),
        ("run.json", change("source", {"run": "rm"}), r"it misstates where the data came from"),
        ("run.json", change("source", {"source": 3}), r"it misstates where the data came from"),
        ("recipe.yaml", Path.unlink, r"the run folder lacks .*recipe\.yaml"),
        ("recipe.yaml", lambda path: path.write_text("epochs: 0"), r"recipe\.yaml: epochs is 0"),
        ("recipe.yaml", lambda path: path.write_text("warmup: 3"), r"recipe\.yaml: .*'warmup'"),
        ("history.csv", Path.unlink, r"the run folder lacks .*history\.csv"),
        ("history.csv", cut, r"cannot read .*history\.csv: it is not a whole table of epochs"),
        ("history.csv", without_last_line, r"history\.csv: it has 1 epochs of 2"),
        ("metrics.json", Path.unlink, r"the run folder lacks .*metrics\.json"),
        ("metrics.json", cut, r"cannot read .*metrics\.json: it is not whole JSON"),
        (
            "metrics.json",
            lambda path: path.write_text("{}"),
            r"cannot read .*metrics\.json: it lacks accuracy; replace it",
        ),
    ],
)
def test_a_broken_folder_is_refused_with_the_files_name(
    folder: Path, name: str, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(folder / name)
    with pytest.raises(PeewitError, match=sentence) as caught:
        Run.open(folder)
    assert caught.value.exit_code == 1


def test_its_own_network_is_fixed_and_one_that_it_gives_away_is_not(tmp_path: Path) -> None:
    run = Run.open(finished(tmp_path / "one", Recipe.preset("fast", model="fast-xs", epochs=2)))
    run.logits(np.zeros((1, 22, 22, 3), np.uint8))
    stages = [[s for s in n.modules() if hasattr(s, "fixed")] for n in (run._network, run.model())]
    assert [[bool(stage.fixed) for stage in one] for one in stages] == [[True] * 6, [False] * 6]


def test_epochs_are_whole_unless_the_time_ended_them(folder: Path) -> None:
    run = Run.open(folder)
    assert run.epochs == 2
    run.history[-1]["images"] = 50
    run.dataset["images"] = {"training": 40}
    assert run.epochs == 2
    timed = dataclasses.replace(run, recipe=Recipe.preset("fast", minutes=1))
    assert timed.epochs == 1.25
    del run.history[-1]["images"]  # an older run
    assert timed.epochs == 2
    assert dataclasses.replace(timed, history=[]).epochs == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (Path.unlink, r"there is no .*model\.safetensors"),
        (cut, r"cannot read .*model\.safetensors: it is cut or damaged"),
        (
            lambda path: write_tensors(path, {"a": torch.zeros(1)}, {}),
            r"model\.safetensors: they do not fit the",
        ),
    ],
)
def test_broken_weights_are_refused_with_the_files_name(
    folder: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(folder / runfolder.WEIGHTS)
    with pytest.raises(PeewitError, match=sentence):
        Run.open(folder).logits(np.zeros((1, 22, 22, 3), np.uint8))


def test_what_is_no_run_folder_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"there is no run folder .*nowhere; peewit runs lists"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(PeewitError, match=r"there is no run folder .*file"):
        Run.open(tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="names of folders are always text here")
def test_a_sound_run_in_a_folder_whose_name_is_no_text_is_not_called_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = folder.parent / "bad\udcff"
    bad.mkdir()
    inside, itself = bad / "one", folder.parent / "two\udcff"
    shutil.copytree(folder, inside)
    shutil.copytree(folder, itself)
    for path in (inside, itself):
        with pytest.raises(UsageError, match=r"udcff.* is not in UTF-8: .*; use another name"):
            Run.open(path)
        for command in (["report"], ["compare", str(folder)], ["export", "--to", "onnx"]):
            assert main([*command, str(path)]) == 2
            said = capsys.readouterr().err
            assert "is not in UTF-8" in said
            assert said.count("\n") == 1
    # where one is, needs no name unless a report says it
    monkeypatch.chdir(bad)
    assert Run.open("one").logits(np.zeros((1, 22, 22, 3), np.uint8)).shape == (1, 3)
    monkeypatch.chdir(itself)
    with pytest.raises(UsageError, match=r"^'two.udcff' is not in UTF-8"):
        Run.open(".")


def test_a_run_without_an_epoch_has_no_weights_yet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runfolder.write_finished(folder, False)
    for name in (runfolder.WEIGHTS, runfolder.HISTORY, runfolder.METRICS):
        (folder / name).unlink()
    run = Run.open(folder)
    assert (run.status, run.history, run.metrics) == ("interrupted", [], {})
    with pytest.raises(PeewitError, match=r"has no weights yet: its first epoch .*--resume"):
        run.model()
    # its layers are known all the same
    assert main(["summary", str(folder)]) == 0
    assert "Multiply-adds" in capsys.readouterr().out


def test_it_is_running_while_somebody_holds_the_lock(folder: Path) -> None:
    runfolder.write_finished(folder, False)
    with runfolder.locked(folder):
        assert Run.open(folder).status == "running"
    assert Run.open(folder).status == "interrupted"


def test_all_runs_in_a_folder_are_found_and_broken_ones_told(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "another")
    shutil.copytree(folder, folder.parent / "broken")
    cut(folder.parent / "broken" / "run.json")
    (folder.parent / "notes").mkdir()
    (folder.parent / ".new.1.part").mkdir()
    (folder.parent / ".new.1.part" / "run.json").touch()
    runs, broken = Run.find_all(folder.parent)
    assert [run.path.name for run in runs] == ["another", "one"]
    assert len(broken) == 1
    assert "broken" in str(broken[0])
    with pytest.raises(PeewitError, match=r"there is no folder .*elsewhere"):
        Run.find_all(folder.parent / "elsewhere")


def test_a_hostile_folder_runs_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "recipe.yaml").write_text(
        f"name: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'hacked'}]"
    )
    with pytest.raises(PeewitError, match="it is not YAML"):
        Run.open(folder)
    assert not (tmp_path / "hacked").exists()
