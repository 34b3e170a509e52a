"""8-bit files are smaller and nearly as accurate, report it, and are complete or absent."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from made_runs import make_run, pictures
from peewit.data.dataset import Dataset
from peewit.data.sources import Splits, load
from peewit.errors import PeewitError
from peewit.export import agreement, int8, job
from peewit.export.int8 import Evaluation, Quantized
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training import checkpoint

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
NAMES = ["cat", "dog", "兔"]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tiny: Dataset, tiny_test: Dataset) -> Splits:
    """Data that is found for every run, with the classes of ``make_run``."""
    parts = (Dataset(part.images, part.labels, NAMES, part.origin) for part in (tiny, tiny_test))
    splits = Splits(*parts, ("it is made up",))
    monkeypatch.setattr(agreement, "load", lambda source, **_: splits)
    return splits


def with_source(run: Run) -> Run:
    """Return the run with a data source."""
    return dataclasses.replace(run, source={"source": "digits", "data": None, "coarse": False})


def facts_of(to: str, file: Path) -> dict[str, str]:
    if to == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    import openvino

    found = openvino.Core().read_model(file).get_rt_info("peewit").value
    return {name: str(getattr(entry, "value", entry)) for name, entry in found.items()}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_file_is_smaller_and_predictions_are_close(
    to: str, raw: bool, run: Run, place: Path, data: Splits
) -> None:
    out = place / f"net{SUFFIX[to]}"
    done = int8.export(with_source(run), to, raw=raw, out=out)
    assert done.file == out
    assert done.pictures == "30 test images"
    assert {file.suffix for file in place.iterdir()} == (
        {".xml", ".bin"} if to == "openvino" else {".onnx"}
    )
    content = job.contents(run, raw)
    theirs = job.find_format(to).load(content, out)
    assert theirs is not None
    assert data.test is not None
    ours = agreement.run_predictor(run)
    correct = theirs(data.test.images).argmax(1) == data.test.labels
    assert done.after.accuracy == pytest.approx(correct.mean())
    correct = ours(data.test.images).argmax(1) == data.test.labels
    assert done.before.accuracy == pytest.approx(correct.mean())
    # each weight takes one byte instead of four
    weights = sum(part.weight.size for part in content.operations if hasattr(part, "weight"))
    assert done.before.bytes - done.after.bytes > 2 * weights - 100_000
    # images of any size, grey and RGB
    for shape in ((16, 16, 3), (131, 40, 1), (1, 1, 3)):
        shown = pictures(3, *shape)
        assert np.abs(theirs(shown) - ours(shown)).max() < 0.1
    recorded = json.loads(facts_of(to, out)["int8"])
    assert recorded == {
        "accuracy_before": done.before.accuracy,
        "accuracy_after": done.after.accuracy,
        "measured_on": "30 test images",
        "data": "30 made-up pictures",
        "calibration_images": 60,
    }
    assert json.loads(facts_of(to, out)["class_names"]) == NAMES


def test_calibration_uses_training_images_and_is_reproducible(
    tmp_path: Path, place: Path, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peewit.export import int8_onnx

    run = with_source(make_run(tmp_path / "run", "fast-xs"))
    seen: list[np.ndarray] = []
    original = int8_onnx.quantize

    def quantize(content: job.Content, batches: list[np.ndarray]) -> object:
        seen.append(np.concatenate(batches))
        return original(content, batches)

    monkeypatch.setattr(int8_onnx, "quantize", quantize)
    monkeypatch.setattr(int8, "CALIBRATION", 20)
    int8.export(run, "onnx", out=place / "first.onnx")
    int8.export(run, "onnx", out=place / "second.onnx")
    assert (place / "first.onnx").read_bytes() == (place / "second.onnx").read_bytes()
    assert len(seen[0]) == 20
    training = {image.tobytes() for image in data.train.images}
    assert {image.tobytes() for image in seen[0]} <= training
    assert len({image.tobytes() for image in seen[0]}) == 20
    np.testing.assert_array_equal(*seen)


def test_the_result_names_the_pictures_that_were_evaluated(
    tmp_path: Path, place: Path, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_source(make_run(tmp_path / "run"))
    monkeypatch.setattr(int8, "EVALUATED", 10)
    monkeypatch.setattr(agreement, "load", lambda source, **_: data._replace(test=None))
    done = int8.export(run, "onnx", out=place / "net.onnx")
    assert done.pictures == "a sample of 10 training images"
    assert "it is made up" in done.notes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on real pictures."""
    data = load("digits").train
    path = tmp_path_factory.mktemp("trained") / "run"
    run = make_run(
        path, "fast-xs", size=16, channels=1, class_names=data.class_names, source="digits"
    )
    model = run.model().train()
    x, labels = run.preprocessing.tensor(data.images), torch.tensor(data.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(2):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
                optimizer.step()
    checkpoint.write_tensors(path / runfolder.WEIGHTS, model.state_dict(), {})
    return path


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_trained_network_keeps_its_accuracy(to: str, trained: Path) -> None:
    """From the command line in a new process, without the output of the vendors' tools."""
    file = trained / f"model-int8{SUFFIX[to]}"
    ended = subprocess.run(
        [sys.executable, "-m", "peewit", "export", str(trained), "--to", to, "--int8"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    sentence, path = ended.stdout.splitlines()
    assert path == str(file)
    assert file.is_file()
    found = re.fullmatch(
        r"accuracy (\S+)% before and (\S+)% after, on \d+ test images; "
        r"\d.\d\d MB before, 0.\d\d MB after",
        sentence,
    )
    assert found is not None, sentence
    before, after = map(float, found.groups())
    assert before > 60
    assert after == pytest.approx(before, abs=2)
    assert all(line.startswith("note: ") for line in ended.stderr.splitlines()), ended.stderr
    assert "on this machine" in ended.stderr


def test_gain_and_loss_are_reported() -> None:
    def gains(after: Evaluation) -> list[str]:
        return Quantized(Path("x"), Evaluation(0.75, 2.0, 4_000_000), after, "").gains()

    (sentence,) = gains(Evaluation(0.745, 1.0, 1_000_000))
    assert "2.0 times as fast" in sentence
    (sentence,) = gains(Evaluation(0.75, 2.0, 1_000_000))
    assert "no faster" in sentence
    assert "1.0 times" in sentence
    assert "only smaller" in sentence
    sentences = gains(Evaluation(0.73, 4.0, 5_000_000))
    assert "no benefit" in sentences[0]
    assert "2.0 percentage points" in sentences[1]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "name its archive or folder with --data"),
        (
            {"source": "cifar10", "data": None, "coarse": False},
            "cifar10 is not on this machine; run peewit data fetch cifar10, or name its archive",
        ),
        ({"source": "cifar10", "data": "gone.tar.gz", "coarse": False}, "cannot find gone.tar.gz"),
        ({"source": "digits", "data": None, "coarse": False}, "its classes differ"),
    ],
)
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_unavailable_data_is_a_clean_error(
    to: str, source: dict[str, object], words: str, tmp_path: Path, place: Path
) -> None:
    run = dataclasses.replace(make_run(tmp_path / "run"), source=source)
    with pytest.raises(PeewitError, match="needs its training images") as caught:
        int8.export(run, to, out=place / f"net{SUFFIX[to]}")
    assert words in str(caught.value)
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "onnx", "openvino-int8"),
        ("openvino", "openvino", "openvino-int8"),
        ("openvino", "nncf", "openvino-int8"),
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
    run = with_source(make_run(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PeewitError) as caught:
        int8.export(run, to, out=place / f"net{SUFFIX[to]}")
    assert f"needs the package {package}; install it with: pip install 'peewit[{extra}]'" in str(
        caught.value
    )
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("data")
def test_a_failed_write_keeps_the_older_file(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peewit.export import int8_onnx

    run = with_source(make_run(tmp_path / "run"))
    with pytest.raises(PeewitError, match="cannot write"):
        int8.export(run, "onnx", out=place / "missing" / "net.onnx")
    (place / "net.onnx").write_text("an older file")
    original = int8_onnx.save

    def save(model: object, content: job.Content, stem: Path) -> list[Path]:
        if "int8" in content.metadata:
            raise OSError(28, "No space left on device")
        return original(model, content, stem)

    monkeypatch.setattr(int8_onnx, "save", save)
    with pytest.raises(PeewitError, match="no space left on device"):
        int8.export(run, "onnx", out=place / "net.onnx")
    assert [file.name for file in place.iterdir()] == ["net.onnx"]
    assert (place / "net.onnx").read_text() == "an older file"
