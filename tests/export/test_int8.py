"""Files of 8 bits are smaller and nearly as good, say how good, and are whole or not there."""

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
from peewit.export.int8 import Judged, Quantised
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training import checkpoint

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
NAMES = ["cat", "dog", "兔"]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tiny: Dataset, tiny_test: Dataset) -> Splits:
    """Data that any run finds, with the classes of made runs."""
    parts = (Dataset(part.images, part.labels, NAMES, part.origin) for part in (tiny, tiny_test))
    splits = Splits(*parts, ("it is made up",))
    monkeypatch.setattr(agreement, "load", lambda source, **_: splits)
    return splits


def known(run: Run) -> Run:
    """Make the run know of data of its own."""
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
def test_it_is_smaller_and_answers_nearly_as_the_run(
    to: str, raw: bool, run: Run, place: Path, data: Splits
) -> None:
    out = place / f"net{SUFFIX[to]}"
    done = int8.export(known(run), to, raw=raw, out=out)
    assert done.file == out
    assert done.pictures == "30 test images"
    assert {file.suffix for file in place.iterdir()} == (
        {".xml", ".bin"} if to == "openvino" else {".onnx"}
    )
    content = job.contents(run, raw)
    theirs = job.find(to).answers(content, out)
    assert theirs is not None
    assert data.test is not None
    ours = agreement.answers_of(run)
    right = theirs(data.test.images).argmax(1) == data.test.labels
    assert done.after.accuracy == pytest.approx(right.mean())
    right = ours(data.test.images).argmax(1) == data.test.labels
    assert done.before.accuracy == pytest.approx(right.mean())
    # the weights are bytes: their float form has four times as many
    weights = sum(part.weight.size for part in content.operations if hasattr(part, "weight"))
    assert done.before.bytes - done.after.bytes > 2 * weights - 100_000
    # pictures of any size, grey ones and coloured ones
    for shape in ((16, 16, 3), (131, 40, 1), (1, 1, 3)):
        shown = pictures(3, *shape)
        assert np.abs(theirs(shown) - ours(shown)).max() < 0.1
    told = json.loads(facts_of(to, out)["int8"])
    assert told == {
        "accuracy_before": done.before.accuracy,
        "accuracy_after": done.after.accuracy,
        "measured_on": "30 test images",
        "data": "30 made-up pictures",
        "calibration_images": 60,
    }
    assert json.loads(facts_of(to, out)["class_names"]) == NAMES


def test_it_is_calibrated_on_training_pictures_and_the_same_each_time(
    tmp_path: Path, place: Path, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peewit.export import int8_onnx

    run = known(make_run(tmp_path / "run", "fast-xs"))
    seen: list[np.ndarray] = []
    true = int8_onnx.quantised

    def quantised(content: job.Content, batches: list[np.ndarray]) -> object:
        seen.append(np.concatenate(batches))
        return true(content, batches)

    monkeypatch.setattr(int8_onnx, "quantised", quantised)
    monkeypatch.setattr(int8, "CALIBRATION", 20)
    int8.export(run, "onnx", out=place / "first.onnx")
    int8.export(run, "onnx", out=place / "second.onnx")
    assert (place / "first.onnx").read_bytes() == (place / "second.onnx").read_bytes()
    assert len(seen[0]) == 20
    training = {image.tobytes() for image in data.train.images}
    assert {image.tobytes() for image in seen[0]} <= training
    assert len({image.tobytes() for image in seen[0]}) == 20
    np.testing.assert_array_equal(*seen)


def test_a_sample_and_training_pictures_are_said_to_be_that(
    tmp_path: Path, place: Path, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = known(make_run(tmp_path / "run"))
    monkeypatch.setattr(int8, "JUDGED", 10)
    monkeypatch.setattr(agreement, "load", lambda source, **_: data._replace(test=None))
    done = int8.export(run, "onnx", out=place / "net.onnx")
    assert done.pictures == "a sample of 10 training images"
    assert "it is made up" in done.notes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned something, of real pictures."""
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
    """As a user types it, in a program of its own: what the tools say is not heard."""
    file = trained / f"model-int8{SUFFIX[to]}"
    ended = subprocess.run(
        [sys.executable, "-m", "peewit", "export", str(trained), "--to", to, "--int8"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    sentence, place = ended.stdout.splitlines()
    assert place == str(file)
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


def test_gain_and_loss_are_said() -> None:
    def said(after: Judged) -> list[str]:
        return Quantised(Path("x"), Judged(0.75, 2.0, 4_000_000), after, "").gains()

    (sentence,) = said(Judged(0.745, 1.0, 1_000_000))
    assert sentence == "it answers 2.0 times as many pictures a second as before, on this machine"
    (sentence,) = said(Judged(0.75, 2.0, 1_000_000))
    assert sentence == (
        "it is no faster than before on this machine (1.0 times), its gain is its size"
    )
    sentences = said(Judged(0.73, 4.0, 5_000_000))
    assert "there is no gain in it" in sentences[0]
    assert sentences[1].startswith("that is 2.0 points of accuracy less")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "the run does not know where it lies; name its archive or folder with --data"),
        (
            {"source": "cifar10", "data": None, "coarse": False},
            "cifar10 is not on this machine; peewit data fetch cifar10, or name its archive",
        ),
        ({"source": "cifar10", "data": "gone.tar.gz", "coarse": False}, "cannot find gone.tar.gz"),
        ({"source": "digits", "data": None, "coarse": False}, "its classes are not those of the"),
    ],
)
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_without_its_data_there_is_none(
    to: str, source: dict[str, object], words: str, tmp_path: Path, place: Path
) -> None:
    run = dataclasses.replace(make_run(tmp_path / "run"), source=source)
    with pytest.raises(PeewitError, match="needs its training pictures") as caught:
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
def test_what_is_not_installed_is_named(
    to: str,
    package: str,
    extra: str,
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = known(make_run(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PeewitError) as caught:
        int8.export(run, to, out=place / f"net{SUFFIX[to]}")
    assert f"needs the package {package}; pip install 'peewit[{extra}]'" in str(caught.value)
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("data")
def test_a_file_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peewit.export import int8_onnx

    run = known(make_run(tmp_path / "run"))
    with pytest.raises(PeewitError, match="cannot write"):
        int8.export(run, "onnx", out=place / "missing" / "net.onnx")
    (place / "net.onnx").write_text("an older one")
    true = int8_onnx.save

    def save(model: object, content: job.Content, stem: Path) -> list[Path]:
        if "int8" in content.metadata:
            raise OSError(28, "No space left on device")
        return true(model, content, stem)

    monkeypatch.setattr(int8_onnx, "save", save)
    with pytest.raises(PeewitError, match="no space left on device"):
        int8.export(run, "onnx", out=place / "net.onnx")
    assert [file.name for file in place.iterdir()] == ["net.onnx"]
    assert (place / "net.onnx").read_text() == "an older one"
