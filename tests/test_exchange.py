"""The commands ``peewit import`` and ``peewit export``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import pytest

from made_runs import make_run
from peewit.__main__ import main
from peewit.errors import UsageError
from peewit.importing.keras import import_keras
from peewit.runs.run import Run
from saved_model_golden import GOLDEN


def test_export_prints_the_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", "fast-xs", unsure_below=0.9, tta=True)
    out = tmp_path / "net.onnx"
    assert main(["export", str(run.path), "--to", "onnx", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "the same class" in said.err
    assert "probabilities within" in said.err
    assert "once (accuracy 25.0%)" in said.err


def test_export_says_if_a_file_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.export.keras.find_spec", lambda name: None)
    out = tmp_path / "net.keras"
    assert (
        main(["export", str(make_run(tmp_path / "run").path), "--to", "keras", "--out", str(out)])
        == 0
    )
    said = capsys.readouterr()
    assert said.out == f"{out}\n{out.with_suffix('.h5')}\n"
    assert f"{out} was not checked by Keras" in said.err
    assert "pip install 'peewit[tensorflow]'" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "tflite"], 2, "tflite"),
        ([], 2, "is missing"),
        (["--to", "onnx", "--out", "x.h5"], 2, "ends in .onnx"),
        (["--to", "keras"], 1, "Keras has no layer"),
        (["--to", "keras", "--int8"], 2, "cannot export to keras in 8 bits"),
        (["--to", "torch", "--int8"], 2, "cannot export to torch in 8 bits"),
        (["--to", "onnx", "--data", "x"], 2, "--data is only for --int8"),
        (["--to", "onnx", "--int8", "--out", "x.xml"], 2, "ends in .onnx"),
        (["--to", "torch", "--out", "d\udce8/m.pt2"], 2, "d\\udce8/m.pt2' is not in UTF-8"),
        (["--to", "onnx", "--int8", "--out", "d\udce8.onnx"], 2, "d\\udce8.onnx' is not in UTF-8"),
        (["--to", "onnx", "--int8"], 1, "name its archive or folder with --data"),
        (["--to", "onnx", "--int8", "--data", "missing"], 1, "missing; check the path"),
        (["--to", "onnx", "--int8", "--data", "."], 1, "needs its training images"),
    ],
)
def test_export_refuses(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path / "run", "fast-xs")
    before = sorted(run.path.iterdir())
    assert main(["export", str(run.path), *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    assert sorted(run.path.iterdir()) == before


def test_export_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "missing", "--to", "onnx"]) == 1
    assert "there is no run folder missing" in capsys.readouterr().err


def test_import_of_a_saved_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.unpack_archive(GOLDEN / "saved_model_tf244.tar.xz", tmp_path, filter="data")
    folder, out = str(tmp_path / "model"), str(tmp_path / "run")
    assert main(["import", folder, "--classes", "cat,dog,hare", "--out", out]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert f"the weights of {folder}" in said.err
    assert Run.open(out).status == "imported"
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    assert main(["import", folder, "--classes", "cat,dog,hare", "--out", out + "2"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"peewit: cannot import {folder}: its saved_model.pb is empty")
    assert said.err.count("\n") == 1
    assert not Path(out + "2").exists()


def test_import_of_a_missing_file_loads_no_data_for_the_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*arguments: object, **named: object) -> None:
        raise AssertionError("data was loaded")

    monkeypatch.setattr("peewit.data.sources.load", load)
    assert main(["import", "missing.h5", "--classes", "cifar100"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("peewit: cannot import missing.h5: ")
    assert said.count("\n") == 1


def test_the_class_names_of_cifar10_need_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keras_h5: Path
) -> None:
    monkeypatch.setattr("peewit.data.sources.load", None)
    out = str(tmp_path / "run")
    assert main(["import", str(keras_h5), "--classes", "cifar10", "--out", out]) == 0
    run = Run.open(out)
    assert run.class_names[::9] == ("airplane", "truck")
    assert run.source == {"source": "cifar10", "data": None, "coarse": False}


def test_import_creates_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "keras", "--raw"]) == 0
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n兔\n", encoding="utf-8")
    capsys.readouterr()
    model, out = str(run.path / "model-raw.h5"), str(tmp_path / "back")
    assert main(["import", model, "--classes", str(names), "--out", out]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert Run.open(out).class_names == run.class_names
    # a name may contain a comma, and editors on Windows write a byte order mark
    names.write_text("cat\ndog, hound\n兔\n", encoding="utf-8-sig")
    assert main(["import", model, "--classes", str(names), "--out", out + "3"]) == 0
    assert Run.open(out + "3").class_names == ("cat", "dog, hound", "兔")
    # existing folder, wrong number of names, missing file
    assert main(["import", model, "--classes", "a,b,c", "--out", out]) == 2
    assert main(["import", model, "--classes", "a,b", "--out", out + "2"]) == 2
    assert main(["import", "missing.h5", "--classes", "a,b", "--out", out + "2"]) == 1
    assert not Path(out + "2").exists()


def test_the_first_evaluation_of_an_import_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    pytest.importorskip("sklearn")
    trained, imported = str(tmp_path / "trained"), tmp_path / "imported"
    settings = ["--epochs", "1", "--image-size", "22", "--batch-size", "64"]
    assert main(["train", "digits", *settings, "--out", trained]) == 0
    assert main(["export", trained, "--to", "keras", "--raw"]) == 0
    model = f"{trained}/model-raw.keras"
    assert main(["import", model, "--classes", "digits", "--out", str(imported)]) == 0
    assert Run.open(imported).metrics == {}
    # on data other than the run's own: printed, not stored
    assert main(["evaluate", str(imported), "digits"]) == 0
    assert Run.open(imported).metrics == {}
    capsys.readouterr()
    # a reader of the result that exits (`| head -1`) does not prevent that it is saved
    with monkeypatch.context() as patch:
        patch.setattr(click, "echo", closed)
        assert main(["evaluate", str(imported)]) == 0
    said = capsys.readouterr()
    assert f"saved the result in {imported}" in said.err
    run = Run.open(imported)
    assert run.status == "imported"
    assert run.metrics["accuracy"] == Run.open(trained).metrics["accuracy"]
    assert (imported / "confusion.png").is_file()
    page = (imported / "report.html").read_text("utf-8")
    assert "test images are classified correctly" in page
    assert "not been tested" not in page
    # only once: another evaluation is printed, and the run does not change
    before = {file.name: file.stat().st_mtime_ns for file in imported.iterdir()}
    assert main(["evaluate", str(imported)]) == 0
    assert "saved the result" not in capsys.readouterr().err
    after = {file.name: file.stat().st_mtime_ns for file in imported.iterdir()}
    assert before.keys() <= after.keys()
    assert all(after[name] == when for name, when in before.items() if name != "engine.json")
    # after further training it is no longer the network that was tested
    assert main(["train", "--resume", str(imported), "--epochs", "1"]) == 0
    assert Run.open(imported).status == "finished"


@pytest.mark.skipif(
    sys.platform != "linux", reason="file names are always valid Unicode on this system"
)
def test_import_refuses_a_file_name_that_is_not_utf_8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, out = make_run(tmp_path / "run"), tmp_path / "caf\udce9.h5", tmp_path / "back"
    assert main(["export", str(run.path), "--to", "keras", "--raw"]) == 0
    shutil.copy(run.path / "model-raw.h5", model)
    capsys.readouterr()
    assert main(["import", str(model), "--classes", "a,b,c", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "caf\\udce9.h5' is not in UTF-8" in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_import_stores_the_absolute_path_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "keras", "--raw"]) == 0
    monkeypatch.chdir(tmp_path)
    model, source = run.path / "model-raw.h5", {"source": "cifar10", "data": "here"}
    names = ["a", "b", "c"]
    imported = import_keras(model, names, out=tmp_path / "back", source=source)
    assert imported.source["data"] == str((tmp_path / "here").resolve())
    with pytest.raises(UsageError, match="is not in UTF-8"):
        import_keras(model, names, out=tmp_path / "b", source=source | {"data": "d\udce8"})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("names.text", "--classes names.text: there is no such file or source"),
        ("cat,dog,cat", "two classes have the name 'cat'"),
        ("cat,dog", "there are 2 class names: the model has 3 outputs"),
        ("cat,dog,caf\udce9", "'caf\\udce9' is not in UTF-8"),
    ],
)
def test_import_reports_wrong_classes(
    classes: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "keras", "--raw"]) == 0
    capsys.readouterr()
    model, out = str(run.path / "model-raw.h5"), tmp_path / "back"
    assert main(["import", model, "--classes", classes, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_peewits_own_keras_file_with_preprocessing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "keras"]) == 0
    capsys.readouterr()
    assert main(["import", str(run.path / "model.keras"), "--classes", "a,b,c"]) == 1
    said = capsys.readouterr().err
    assert "import the .h5 file" in said
    assert "--raw" in said


def test_export_to_openvino_names_the_float32_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    run = make_run(tmp_path / "run")
    assert main(["export", str(run.path), "--to", "openvino"]) == 0
    assert '{"INFERENCE_PRECISION_HINT": "f32"}' in capsys.readouterr().err
