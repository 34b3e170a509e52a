"""An exported file predicts as the run does in its own runtime; otherwise it is not kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from made_runs import make_run, pictures
from peewit.errors import PeewitError, UsageError
from peewit.evaluation.inference import softmax
from peewit.export import agreement, job
from peewit.export.agreement import Sample
from peewit.export.operations import Dense
from peewit.runs.run import Run

CHECKED = ("onnx", "openvino", "torch")
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("to", CHECKED)
def test_file_predicts_the_same_as_the_run(to: str, raw: bool, run: Run, place: Path) -> None:
    out = place / f"net{SUFFIX[to]}"
    done = job.export(run, to, raw=raw, out=out)
    assert list(done.files) == [out]
    first = done.files[out]
    assert first is not None
    assert first.changed == 0
    assert first.difference < 1e-4
    left = {file.suffix for file in place.iterdir()}
    assert left == ({".xml", ".bin"} if to == "openvino" else {SUFFIX[to]})
    # sizes that the export's own check does not cover
    content = job.contents(run, raw)
    theirs = job.find_format(to).load(content, out)
    assert theirs is not None
    channels = run.preprocessing.channels
    sizes = ((32, 32), (16, 16), (7, 90), (131, 40), (1, 1))
    sample = Sample(tuple(pictures(3, *size, channels) for size in sizes), "")
    found = agreement.compare(agreement.run_predictor(run), theirs, sample)
    assert found.changed == 0
    assert found.difference < 1e-4


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_grey_and_rgb_pictures_are_both_accepted(to: str, run: Run, place: Path) -> None:
    out = place / f"net{SUFFIX[to]}"
    job.export(run, to, out=out)
    theirs = job.find_format(to).load(job.contents(run, False), out)
    assert theirs is not None
    sample = Sample((pictures(2, 40, 30, 1), pictures(2, 40, 30, 3)), "")
    assert agreement.compare(agreement.run_predictor(run), theirs, sample).difference < 1e-4


def test_the_class_names_are_in_the_metadata(run: Run, place: Path) -> None:
    import onnxruntime
    import openvino

    job.export(run, "onnx", out=place / "net.onnx")
    session = onnxruntime.InferenceSession(
        (place / "net.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == ["cat", "dog", "兔"]
    assert facts["weights_sha256"] == job.weights_checksum(run)
    job.export(run, "openvino", out=place / "net.xml")
    model = openvino.Core().read_model(place / "net.xml")
    assert json.loads(model.get_rt_info(["peewit", "class_names"]).value) == ["cat", "dog", "兔"]


@pytest.mark.parametrize("to", CHECKED)
def test_a_file_that_disagrees_is_not_kept(
    to: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", "fast-xs")
    out = place / f"net{SUFFIX[to]}"
    out.write_text("an older file")
    original = job.operations_of

    def swapped(model: object) -> list[object]:
        found = original(model)  # type: ignore[arg-type]
        return [
            Dense(part.weight[[1, 0, 2]], part.bias) if isinstance(part, Dense) else part
            for part in found
        ]

    monkeypatch.setattr(job, "operations_of", swapped)
    with pytest.raises(PeewitError, match="does not agree with the run") as caught:
        job.export(run, to, out=out)
    assert str(out) in str(caught.value)
    assert [file.name for file in place.iterdir()] == [out.name]
    assert out.read_text() == "an older file"


def test_nan_does_not_agree() -> None:
    nan = np.full((2, 3), np.nan, np.float32)
    with pytest.raises(PeewitError, match=r"x\.onnx does not agree"):
        agreement.require_agreement(agreement.compare_probabilities(nan, nan, ""), "x.onnx")


def test_a_tie_may_be_decided_either_way() -> None:
    ours = np.array([[0.5, 0.4999999]], np.float32)
    assert agreement.compare_probabilities(ours, ours[:, ::-1], "").changed == 0


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("keras", "h5py", "keras"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    to: str,
    package: str,
    extra: str,
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PeewitError) as caught:
        job.export(run, to, out=place / f"net{job.find_format(to).SUFFIXES[0]}")
    assert f"pip install 'peewit[{extra}]'" in str(caught.value)
    assert list(place.iterdir()) == []


def test_the_default_is_a_file_in_the_run_folder(tmp_path: Path, place: Path) -> None:
    run = make_run(tmp_path / "run")
    assert list(job.export(run, "onnx").files) == [run.path / "model.onnx"]
    assert list(job.export(run, "onnx", raw=True).files) == [run.path / "model-raw.onnx"]


def test_an_unwritable_folder_is_a_clean_error(tmp_path: Path, place: Path) -> None:
    with pytest.raises(PeewitError, match="cannot write"):
        job.export(make_run(tmp_path / "run"), "onnx", out=place / "missing" / "net.onnx")


def test_wrong_suffixes_and_formats_are_refused(tmp_path: Path, place: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        job.export(run, "onnx", out=place / "net.h5")
    with pytest.raises(UsageError, match="choose one of onnx"):
        job.export(run, "tflite")


SIBLINGS = [
    ("openvino", "net.xml", "net.bin"),
    ("openvino", "net.bin", "net.xml"),
    ("keras", "net.keras", "net.h5"),
    ("keras", "net.h5", "net.keras"),
]


@pytest.mark.parametrize(("to", "name", "other"), SIBLINGS)
def test_a_file_that_out_does_not_name_is_not_overwritten(
    to: str, name: str, other: str, tmp_path: Path, place: Path
) -> None:
    run = make_run(tmp_path / "run")
    (place / other).write_text("the user's own")
    with pytest.raises(UsageError, match="overwrite") as caught:
        job.export(run, to, out=place / name)
    assert str(place / other) in str(caught.value)
    assert [file.name for file in place.iterdir()] == [other]
    assert (place / other).read_text() == "the user's own"


@pytest.mark.parametrize(("to", "name", "other"), SIBLINGS)
def test_an_export_can_be_repeated(
    to: str, name: str, other: str, tmp_path: Path, place: Path
) -> None:
    run = make_run(tmp_path / "run")
    for file in (name, other):
        (place / file).write_text("from an earlier export")
    job.export(run, to, out=place / name)
    assert {file.name for file in place.iterdir()} == {name, other}
    for file in (name, other):
        assert (place / file).stat().st_size > 1_000


def test_a_format_writes_a_file_for_each_suffix(tmp_path: Path, place: Path) -> None:
    # the refusal to overwrite relies on this
    run = make_run(tmp_path / "run")
    for to in job.FORMATS:
        form = job.find_format(to)
        folder = place / to
        folder.mkdir()
        form.write(job.contents(run, False), folder / "net.v1")
        assert {file.name for file in folder.iterdir()} == {f"net.v1{end}" for end in form.SUFFIXES}


def test_only_the_tutorial_network_can_be_exported_to_keras(tmp_path: Path, place: Path) -> None:
    with pytest.raises(PeewitError, match="Keras has no layer for its RepeatEdge"):
        job.export(make_run(tmp_path / "run", "fast-xs"), "keras", out=place / "net.keras")
    assert list(place.iterdir()) == []


def test_the_export_has_no_test_time_augmentation(tmp_path: Path, place: Path) -> None:
    run = make_run(tmp_path / "run", "fast-xs", unsure_below=0.9, tta=True)
    job.export(run, "onnx", raw=True, out=place / "net.onnx")
    theirs = job.find_format("onnx").load(job.contents(run, True), place / "net.onnx")
    assert theirs is not None
    images = pictures(4, 32, 32, 3)
    single = agreement.run_predictor(run)(images)
    np.testing.assert_allclose(theirs(images), single, atol=1e-4)
    assert np.abs(softmax(run.logits(images)) - single).max() > 1e-4
