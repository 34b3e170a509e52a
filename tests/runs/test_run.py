"""Opening a run folder restores everything; errors name the broken file."""

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
    """A finished run with initial weights."""
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


def test_opening_restores_everything(folder: Path) -> None:
    run = Run.open(str(folder))
    assert run.path == folder
    assert run.recipe == RECIPE
    assert run.class_names == NAMES
    assert run.preprocessing == RULE
    assert run.history == [ROW, ROW | {"epoch": 2}]  # bit for bit the same floats
    assert isinstance(run.history[0]["epoch"], int)
    assert run.metrics["accuracy"] == 0.25
    assert run.environment == {"torch": torch.__version__}
    assert run.source == {"source": "cifar10", "data": None, "coarse": False}
    assert run.dataset == {"origin": "made up"}
    assert run.status == "finished"
    assert repr(run) == f"Run({str(folder)!r}, finished, 2 epochs)"


def test_logits_do_not_depend_on_batch_size_and_any_image_size_is_accepted(folder: Path) -> None:
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


def test_each_call_of_model_returns_a_new_one(folder: Path) -> None:
    run = Run.open(folder)
    one, other = run.model(), run.model()
    assert one is not other
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert next(other.parameters()).abs().max() > 0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def replace(name: str, value: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return edit


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("run.json", Path.unlink, r"one is not a run folder.*run\.json"),
        ("run.json", truncate, r"cannot read .*run\.json: it is not valid JSON"),
        (
            "run.json",
            lambda path: path.write_bytes(b"\xff\x00"),
            r"run\.json: it is not valid JSON",
        ),
        ("run.json", lambda path: path.write_text("[1]"), r"run\.json: it is not a JSON object"),
        ("run.json", lambda path: path.write_text("[" * 9999), r"run\.json: it is not valid JSON"),
        ("run.json", replace("format", 2), r"run\.json.*\(format 2"),
        ("run.json", replace("format", "x"), r"cannot read .*run\.json: .*format"),
        ("run.json", lambda path: path.write_text("{}"), r"cannot read .*run\.json: .*format"),
        ("run.json", lambda path: path.write_text('{"format": 1}'), r"cannot read .*run\.json"),
        ("run.json", replace("class_names", 3), r"run\.json: class_names is not valid"),
        ("run.json", replace("class_names", []), r"run\.json: class_names is not valid"),
        (
            "run.json",
            replace("preprocessing", {"height": 1}),
            r"cannot read .*run\.json: .*preprocessing",
        ),
        (
            "run.json",
            replace(
                "preprocessing", {"height": -1, "width": 1, "channels": 1, "mean": [0], "std": [1]}
            ),
            r"cannot read .*run\.json: preprocessing.height is not valid",
        ),
        ("run.json", replace("preprocessing", 3), r"cannot read .*run\.json"),
        ("run.json", replace("source", {"source": 3}), r"run\.json: source\.source is not valid"),
        ("run.json", lambda path: path.write_text('{"format": 1, "format": 1}'), "given twice"),
        ("recipe.yaml", Path.unlink, r"recipe\.yaml is missing"),
        ("recipe.yaml", lambda path: path.write_text("epochs: 0"), r"recipe\.yaml: epochs is 0"),
        ("recipe.yaml", lambda path: path.write_text("warmup: 3"), r"recipe\.yaml: .*'warmup'"),
        ("history.csv", Path.unlink, r"history\.csv is missing"),
        ("history.csv", truncate, r"cannot read .*history\.csv: row 1: \w+ is missing"),
        ("history.csv", without_last_line, r"cannot read .*history\.csv: .*\b1 .*\b2\b"),
        ("metrics.json", Path.unlink, r"metrics\.json is missing"),
        ("metrics.json", truncate, r"cannot read .*metrics\.json: it is not valid JSON"),
        (
            "metrics.json",
            lambda path: path.write_text("{}"),
            r"cannot read .*metrics\.json: accuracy is missing; ",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_the_name_of_the_file(
    folder: Path, name: str, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder / name)
    with pytest.raises(PeewitError, match=sentence) as caught:
        Run.open(folder)
    assert caught.value.exit_code == 1


def test_only_the_network_for_inference_is_fixed(tmp_path: Path) -> None:
    run = Run.open(finished(tmp_path / "one", Recipe.preset("fast", model="fast-xs", epochs=2)))
    run.logits(np.zeros((1, 22, 22, 3), np.uint8))
    stages = [[s for s in n.modules() if hasattr(s, "fixed")] for n in (run._network, run.model())]
    assert [[bool(stage.fixed) for stage in one] for one in stages] == [[True] * 6, [False] * 6]


def test_only_epochs_of_a_time_budget_are_fractions(folder: Path) -> None:
    run = Run.open(folder)
    assert run.epochs == 2
    run.history[-1]["images"] = 50
    run.dataset["images"] = {"training": 40}
    assert run.epochs == 2
    timed = dataclasses.replace(run, recipe=Recipe.preset("fast", minutes=1))
    assert timed.epochs == 1.25
    del run.history[-1]["images"]  # as in an older run
    assert timed.epochs == 2
    assert dataclasses.replace(timed, history=[]).epochs == 0


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (Path.unlink, r"model\.safetensors"),
        (truncate, r"cannot read .*model\.safetensors"),
        (
            lambda path: write_tensors(path, {"a": torch.zeros(1)}, {}),
            r"model\.safetensors: .*fit",
        ),
    ],
)
def test_damaged_weights_are_refused_with_the_name_of_the_file(
    folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder / runfolder.WEIGHTS)
    with pytest.raises(PeewitError, match=sentence):
        Run.open(folder).logits(np.zeros((1, 22, 22, 3), np.uint8))


def test_missing_folders_and_files_are_not_runs(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=r"no run folder .*nowhere; .*peewit runs"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(PeewitError, match=r"no run folder .*file"):
        Run.open(tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="folder names are always valid text here")
def test_folder_name_that_is_not_utf_8_is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = folder.parent / "bad\udcff"
    bad.mkdir()
    inside, itself = bad / "one", folder.parent / "two\udcff"
    shutil.copytree(folder, inside)
    shutil.copytree(folder, itself)
    for path in (inside, itself):
        with pytest.raises(UsageError, match=r"udcff.*UTF-8"):
            Run.open(path)
        for command in (["report"], ["compare", str(folder)], ["export", "--to", "onnx"]):
            assert main([*command, str(path)]) == 2
            error = capsys.readouterr().err
            assert "UTF-8" in error
            assert error.count("\n") == 1
    # The name of the current folder only matters if a report shows it
    monkeypatch.chdir(bad)
    assert Run.open("one").logits(np.zeros((1, 22, 22, 3), np.uint8)).shape == (1, 3)
    monkeypatch.chdir(itself)
    with pytest.raises(UsageError, match=r"^'two.udcff'.*UTF-8"):
        Run.open(".")


def test_a_run_without_an_epoch_has_no_weights_yet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runfolder.write_finished(folder, False)
    for name in (runfolder.WEIGHTS, runfolder.HISTORY, runfolder.METRICS):
        (folder / name).unlink()
    run = Run.open(folder)
    assert (run.status, run.history, run.metrics) == ("interrupted", [], {})
    with pytest.raises(PeewitError, match=r"has no weights yet.*--resume"):
        run.model()
    # Its layers are known without weights
    assert main(["summary", str(folder)]) == 0
    assert "Multiply-adds" in capsys.readouterr().out


def test_a_run_is_running_while_its_lock_is_held(folder: Path) -> None:
    runfolder.write_finished(folder, False)
    with runfolder.locked(folder):
        assert Run.open(folder).status == "running"
    assert Run.open(folder).status == "interrupted"


def test_all_runs_in_a_folder_are_found_and_broken_ones_reported(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "another")
    shutil.copytree(folder, folder.parent / "broken")
    truncate(folder.parent / "broken" / "run.json")
    (folder.parent / "notes").mkdir()
    (folder.parent / ".new.1.part").mkdir()
    (folder.parent / ".new.1.part" / "run.json").touch()
    runs, broken = Run.find_all(folder.parent)
    assert [run.path.name for run in runs] == ["another", "one"]
    assert len(broken) == 1
    assert "broken" in str(broken[0])
    with pytest.raises(PeewitError, match=r"no folder .*elsewhere"):
        Run.find_all(folder.parent / "elsewhere")


def test_a_malicious_folder_executes_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "recipe.yaml").write_text(
        f"name: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'hacked'}]"
    )
    with pytest.raises(PeewitError, match=r"a tag \(!\) is not allowed"):
        Run.open(folder)
    assert not (tmp_path / "hacked").exists()
