"""The commands as a user types them: their output on stdout and stderr, and the exit code."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.shell_completion import ShellComplete
from PIL import Image

import peewit
import peewit.trainer
from peewit.__main__ import main
from peewit.cli import cli
from peewit.cli.options import parse_indices

# 22 pixels is the smallest image that the tutorial's network takes: the fastest real run
FAST = ["--epochs", "1", "--image-size", "22", "--batch-size", "64"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run on digits by the command line, and return its folder."""
    pytest.importorskip("sklearn")
    path = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "digits", *FAST, "--out", str(path)]) == 0
    return path


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the training by a stub that records its arguments in the returned dict."""
    asked: dict[str, Any] = {}

    def train(dataset: peewit.Dataset, recipe: peewit.Recipe, **options: Any) -> Any:
        asked.update(options, dataset=dataset, recipe=recipe)
        metrics = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "images": 9, "split": "test"}
        return SimpleNamespace(path=Path("runs/x"), metrics=metrics, findings={})

    monkeypatch.setattr(peewit.trainer, "train", train)
    return asked


def picture(path: Path, size: int = 30) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command that must fail; return its exit code and its error, which is one sentence."""
    code = main(list(arguments))
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("peewit: ")
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    return code, output.err


# train


def test_train_prints_the_accuracy_and_the_folder(
    training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "accuracy 50.00% (95% interval 40.00% to 60.00%) on 9 test images",
        str(Path("runs/x")),
    ]
    assert training["source"] == {"source": "digits", "data": None, "coarse": False}
    assert training["recipe"] == peewit.Recipe()
    assert len(training["test"]) > 300


def test_a_real_training_saves_its_results(folder: Path) -> None:
    run = peewit.Run.open(folder)
    assert run.status == "finished"
    assert run.recipe.image_size == 22
    assert run.source["source"] == "digits"
    for name in ("curves.png", "confusion.png", "mistakes.png", "metrics.json"):
        assert (folder / name).stat().st_size > 0


@pytest.mark.parametrize(
    "field",
    # those of a backbone need one: tests/test_trainer_backbone.py
    [
        field
        for field in dataclasses.fields(peewit.Recipe)
        if field.name != "name" and not field.name.startswith("backbone")
    ],
)
def test_every_recipe_field_has_a_flag(field: Any, training: dict[str, Any]) -> None:
    values = {"model": "tutorial", "optimizer": "adam", "validate_on": "test", "image_size": 40}
    values |= {"lr": 0.25, "validation_fraction": 0.25, "checkpoint_minutes": 0.5}
    values |= {"schedule": "linear", "label_smoothing": 0.25, "flip": "random", "skip_easy": 0.25}
    values |= {"precision": "bfloat16", "normalize": True, "tta": True, "calibrate": True}
    values |= {"until_accuracy": 0.5, "minutes": 7.0, "batch_norm_statistics": "moving"}
    values |= {"class_weights": "balanced", "fit": "pad", "random_crop": 0.25, "start": "auto"}
    values |= {"fine_tune": "all"}
    value = values.get(field.name, 7)
    budget = ["--recipe", "tutorial"] if field.name in ("until_accuracy", "minutes") else []
    flag = "--" + field.name.replace("_", "-")
    given = [flag] if value is True else [flag, str(value)]
    assert main(["train", "digits", *budget, *given]) == 0
    assert getattr(training["recipe"], field.name) == value
    assert training["recipe"] == peewit.Recipe(**{field.name: value})


@pytest.mark.parametrize("flag", ["--minutes", "--until-accuracy"])
def test_a_budget_selects_the_fast_recipe_and_the_model_auto(
    flag: str, training: dict[str, Any]
) -> None:
    assert main(["train", "digits", flag, "0.5"]) == 0
    assert (training["recipe"].name, training["recipe"].model) == ("fast", "auto")


def test_minutes_and_epochs_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--minutes", "5", "--epochs", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("peewit: --epochs and --minutes are both given")
    assert error.count("\n") == 1
    assert main(["train", "digits", "--until-accuracy", "0.9", "--epochs", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("peewit: --epochs and --until-accuracy are both given")
    assert error.count("\n") == 1


def test_flags_override_a_recipe_file(training: dict[str, Any]) -> None:
    Path("mine.yaml").write_text("epochs: 3\nbatch_size: 16\n")
    assert main(["train", "digits", "--recipe", "mine.yaml", "--epochs", "4"]) == 0
    assert training["recipe"] == peewit.Recipe(name="mine", epochs=4, batch_size=16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits", "--epochs", "0"], "peewit: --epochs is 0: it must be at least 1"),
        (["digits", "--batch-size", "-1"], "peewit: --batch-size is -1"),
        (["digits", "--lr", "-0.1"], "peewit: --lr is -0.1"),
        (["digits", "--lr", "nan"], "peewit: --lr is nan"),
        (["digits", "--recipe", "tutorail"], "there is no recipe 'tutorail'"),
        (["digits", "--recipe", "missing.yaml"], "cannot read the recipe missing.yaml"),
        (["digits", "--model", "resnet"], "there is no model 'resnet'"),
        (["cifar11"], "there is no source cifar11"),
        (["digits", "--batch-size", "5000"], "peewit: --batch-size is 5,000"),
        ([], "SOURCE is missing"),
    ],
)
def test_train_rejects_invalid_arguments(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = failure(capsys, "train", *arguments)
    assert code == (1 if "missing.yaml" in sentence else 2)
    assert sentence in error
    assert not Path("runs").exists()


def test_train_explains_how_to_provide_missing_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "train", "cifar10")
    assert code == 1
    assert "cannot download CIFAR-10" in error
    assert "cifar-10-python.tar.gz" in error
    assert "--data" in error


def test_fallback_trains_on_another_source(
    training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "cifar10", "--fallback", "digits"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("note: cannot download CIFAR-10")
    assert error.endswith("using digits instead\n")
    assert error.count("\n") == 1
    assert training["source"]["source"] == "digits"
    assert training["dataset"].image_shape == (8, 8, 1)
    assert training["recipe"] == peewit.Recipe.preset("digits")
    for words, recipe in (
        (["--epochs", "2"], peewit.Recipe.preset("digits", epochs=2)),
        (["--recipe", "tutorial"], peewit.Recipe()),
    ):
        assert main(["train", "cifar10", "--fallback", "digits", *words]) == 0
        assert training["recipe"] == recipe


def test_fallback_is_used_if_the_download_cannot_be_saved(
    training: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    monkeypatch.setenv("PEEWIT_HOME", str(Path("file/home").absolute()))
    assert main(["train", "cifar10", "--fallback", "digits"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("note: cannot write")
    assert "using digits instead" in error
    assert training["source"]["source"] == "digits"


def test_too_small_budget_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn")
    assert main(["train", "digits", "--minutes", "0.0001", "--threads", "1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1].startswith("peewit: 0.0001 minutes is not enough")
    assert not Path("runs").exists()


def test_fallback_is_not_used_for_damaged_data(
    training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.tar.gz").write_bytes(b"<html>not found</html>")
    arguments = ["train", "cifar10", "--data", "bad.tar.gz", "--fallback", "digits"]
    code, error = failure(capsys, *arguments)
    assert (code, training) == (1, {})
    assert "bad.tar.gz" in error


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("train", "--resume"), "omit --coarse"),
        (("evaluate",), "omit --coarse"),
    ],
)
def test_coarse_is_rejected_without_a_source(
    words: tuple[str, ...], advice: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, sentence = failure(capsys, *words, str(folder), "--coarse")
    assert code == 2
    assert advice in sentence


def test_resume_keeps_the_source_and_the_recipe(folder: Path, training: dict[str, Any]) -> None:
    earlier = peewit.Run.open(folder)
    assert main(["train", "--resume", str(folder), "--epochs", "3"]) == 0
    assert training["recipe"] == earlier.recipe.replace(epochs=3, threads=None)
    assert training["resume"] == folder
    assert training["source"] == earlier.source


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_saves_a_checkpoint_and_prints_how_to_resume(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = ["train", "digits", *FAST, "--epochs", "1000", "--out", str(tmp_path / "run")]
    # a shell makes background jobs ignore SIGINT, and their children inherit that
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(
        [sys.executable, "-m", "peewit", *command], stderr=subprocess.PIPE, text=True
    )
    try:
        history = tmp_path / "run" / "history.csv"
        while child.poll() is None and not history.exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=60)
    finally:
        child.kill()
        signal.signal(signal.SIGINT, before)
    assert child.returncode == 130
    last = error.splitlines()[-1]
    assert last.startswith("peewit: ")
    assert f"peewit train --resume {tmp_path / 'run'}" in last
    assert peewit.Run.open(tmp_path / "run").status == "interrupted"


# show


def test_show_writes_the_chosen_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "digits", "--indices", "100-103", "--out", "four.png"]) == 0
    output = capsys.readouterr().out
    assert "1,438 images of 8 x 8, grey, in 10 classes" in output
    assert output.splitlines()[-1] == "four.png"
    width, height = Image.open("four.png").size
    assert width > 3 * height


def test_show_draws_from_the_test_set_by_seed_and_class(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in (("1", "a.png"), ("1", "b.png"), ("2", "c.png")):
        chosen = ["--test", "--classes", "3, 8", "--count", "6", "--seed", seed, "--out", name]
        assert main(["show", "digits", *chosen]) == 0
        assert capsys.readouterr().out.startswith("359 images")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert Path("a.png").read_bytes() != Path("c.png").read_bytes()


def test_show_names_its_file_after_the_source() -> None:
    assert main(["show", "digits", "--count", "2"]) == 0
    assert Path("digits.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits", "--indices", "9-7"], "'9-7' is not an ascending range"),
        (["digits", "--indices", "1-"], "'1-' is not a number such as 7"),
        (["digits", "--indices", "0-999999999"], "range of up to 10,000"),
        (["digits", "--indices", "1438"], "there is no image 1438"),
        (["digits", "--classes", "cat"], "there is no class 'cat'"),
        (["digits", "--count", "0"], "0 images"),
    ],
)
def test_show_rejects_invalid_choices(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = failure(capsys, "show", *arguments)
    assert code == 2
    assert sentence in error


def test_indices_keep_the_given_order() -> None:
    numbers = parse_indices(None, None, "7, 3-5,3")  # type: ignore[arg-type]
    assert numbers == [7, 3, 4, 5, 3]


# data


def test_data_where_lists_the_places_searched(
    isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "where", "cifar10"]) == 0
    output = capsys.readouterr()
    assert "found" not in output.out
    assert "Keras" in output.out
    assert "in none of these places" in output.err
    kept = isolated / ".keras" / "datasets" / "cifar-10-batches-py.tar.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert main(["data", "where", "cifar10"]) == 0
    output = capsys.readouterr()
    assert f"found  Keras        {kept}" in output.out
    assert output.err == ""


def test_data_where_of_a_given_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "where", "cifar10", "--data", str(tmp_path / "gone")]) == 0
    output = capsys.readouterr()
    assert output.out.split() == ["-", "--data", str(tmp_path / "gone")]
    assert f"cifar10 is not at {tmp_path / 'gone'}" in output.err


@pytest.mark.parametrize("command", ["where", "fetch", "verify"])
def test_data_rejects_unknown_names(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "data", command, "mnist")
    assert code == 2
    assert "there is no source mnist" in error


def test_data_fetch_reports_a_failed_download(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "data", "fetch", "cifar10")
    assert code == 1
    assert "cannot download CIFAR-10" in error


# summary


def test_summary_counts_the_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "tutorial"]) == 0
    table = capsys.readouterr().out
    assert main(["summary", "tutorial", "--explain"]) == 0
    explained = capsys.readouterr().out
    for number in ("159,018", "158,506", "512"):
        assert number in table
    assert "2 x (64 + 128 + 64) = 512" in explained
    assert len(explained) > 2 * len(table)


def test_summary_of_a_run_describes_its_own_network(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(folder), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["layers"][0]
    # one grey channel: 3 x 3 x 1 x 64 + 64
    assert first["parameters"] == 640


def test_summary_of_an_unknown_model_lists_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "summary", "resnet")
    assert code == 2
    assert "tutorial" in error


# evaluate


def test_evaluate_reproduces_the_metrics_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    saved = peewit.Run.open(folder).metrics
    assert result["images"] == saved["images"]
    assert result["accuracy"] == saved["accuracy"]
    assert result["loss"] == pytest.approx(saved["loss"], rel=1e-5)
    assert main(["evaluate", str(folder), "digits"]) == 0
    assert f"{saved['accuracy']:.2%}" in capsys.readouterr().out


def test_evaluate_rejects_data_with_other_classes(
    folder: Path,
    tiny: peewit.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import peewit.data.sources

    splits = peewit.Splits(tiny, tiny)
    monkeypatch.setattr(peewit.data.sources, "load", lambda source, **options: splits)
    code, error = failure(capsys, "evaluate", str(folder), "other")
    assert code == 1
    assert "dark, middle, bright" in error


def test_evaluate_says_which_test_images_are_training_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import peewit.data.sources

    train, test = peewit.load("digits")[:2]
    mixed = peewit.Dataset(
        np.concatenate([train.images[:40], test.images[:60]]),
        np.concatenate([train.labels[:40], test.labels[:60]]),
        test.class_names,
    )
    splits = peewit.Splits(train, mixed)
    monkeypatch.setattr(peewit.data.sources, "load", lambda source, **options: splits)
    assert main(["evaluate", str(folder), "mine", "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)["also_in_training"]
    assert (found["images"], found["indices"]) == (40, list(range(20)))
    right = peewit.Run.open(folder).logits(test.images[:60]).argmax(1) == test.labels[:60]
    assert found["accuracy_without"] == pytest.approx(right.mean())
    assert output.err.startswith("note: 40 of 100 test images are also training images; without")


def test_evaluate_without_a_test_set_uses_all_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import peewit.data.sources

    train = peewit.load("digits").train
    monkeypatch.setattr(
        peewit.data.sources, "load", lambda source, **options: peewit.Splits(train, None)
    )
    assert main(["evaluate", str(folder), "mine", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["images"] == len(train)
    assert "has no test set" in output.err


def test_evaluate_needs_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "evaluate", "nowhere")
    assert code == 1
    assert "nowhere" in error


# predict


def test_predict_prints_the_most_likely_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(Path("a.png"))
    assert main(["predict", str(folder), "a.png"]) == 0
    name, _, label = capsys.readouterr().out.strip().partition(": ")
    assert name == "a.png"
    assert label.endswith("%")
    assert main(["predict", str(folder), "a.png", "--top", "3", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["image"] == "a.png"
    assert len(answer["labels"]) == 3
    assert label.startswith(answer["labels"][0]["class"])


def test_predict_reads_folders_and_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("holiday").mkdir()
    content = picture(Path("holiday/a.jpg")).read_bytes()
    picture(Path("holiday/b.png"), size=9)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert main(["predict", str(folder), "holiday", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition(": ")[0] for line in lines]
    assert names == [str(Path("holiday/a.jpg")), str(Path("holiday/b.png")), "standard input"]
    # the same image must get the same prediction
    assert lines[0].partition(": ")[2] == lines[2].partition(": ")[2]


def test_predict_continues_after_an_unreadable_file_and_fails_at_the_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.png").write_text("not an image")
    picture(Path("good.png"))
    assert main(["predict", str(folder), "bad.png", "good.png"]) == 1
    output = capsys.readouterr()
    assert output.out.startswith("good.png: ")
    assert output.err.startswith("peewit: cannot read bad.png")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(("top", "image", "code"), [("0", "a.png", 2), ("1", "missing.png", 1)])
def test_predict_rejects_a_bad_top_and_a_missing_file(
    top: str, image: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(Path("a.png"))
    assert failure(capsys, "predict", str(folder), image, "--top", top)[0] == code


# runs and compare


def test_runs_lists_runs_and_reports_damaged_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path("runs/broken")
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{")
    whole = Path("runs/whole")
    whole.mkdir()
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith("."):
            (whole / file.name).write_bytes(file.read_bytes())
    assert main(["runs"]) == 0
    output = capsys.readouterr()
    assert str(whole) in output.out
    assert "finished" in output.out
    assert str(broken) in output.err
    assert main(["runs", "runs", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["run"] == str(whole)
    assert facts["accuracy"] == peewit.Run.open(folder).metrics["accuracy"]


def test_runs_of_a_missing_and_of_an_empty_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "runs")[0] == 1
    Path("empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert capsys.readouterr().err == "note: there are no runs in empty\n"


def test_compare_plots_and_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder), str(folder), "--out", "both.png"]) == 0
    assert str(folder) in capsys.readouterr().out
    assert Image.open("both.png").format == "PNG"
    assert main(["compare", str(folder), str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    assert failure(capsys, "compare", str(folder), "nowhere")[0] == 1


def test_compare_needs_two_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failure(capsys, "compare", str(folder))
    assert code == 2
    assert "two runs" in error


# completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    output = capsys.readouterr().out
    assert "_PEEWIT_COMPLETE" in output
    assert f"{shell}_complete" in output


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "tr", {"train"}),
        (["train"], "cifar", {"cifar10", "cifar100"}),
        (["train", "digits", "--recipe"], "tu", {"tutorial"}),
        (["train", "digits", "--ep"], "--ep", {"--epochs"}),
        (["summary"], "tut", {"tutorial"}),
        (["data"], "f", {"fetch"}),
        (["evaluate"], "runs", {str(Path("runs/one"))}),
    ],
)
def test_names_are_completed(words: list[str], incomplete: str, expected: set[str]) -> None:
    Path("runs/one").mkdir(parents=True)
    complete = ShellComplete(cli, {}, "peewit", "_PEEWIT_COMPLETE")
    found = complete.get_completions(words, incomplete)
    assert {item.value for item in found} == expected


def test_a_path_is_completed_by_the_shell() -> None:
    complete = ShellComplete(cli, {}, "peewit", "_PEEWIT_COMPLETE")
    (item,) = complete.get_completions(["train"], "./some")
    assert item.type == "file"


# every command


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_has_examples_and_fits_the_screen(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Examples:\n    peewit {name}" in text
    assert max(map(len, text.splitlines())) <= 100
