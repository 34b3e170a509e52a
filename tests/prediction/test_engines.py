"""All engines reproduce PyTorch's predictions; one that does not, or is missing, is not used."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from made_runs import make_run, pictures
from peewit.errors import PeewitError
from peewit.images.fitting import Fit
from peewit.images.scaled import read_sized
from peewit.prediction import engines
from peewit.prediction.predict import Prediction, predict
from peewit.runs.folder import WEIGHTS
from peewit.runs.run import Run

CASES: dict[str, dict[str, Any]] = {
    "tutorial": {},
    "mirrored second looks": {"name": "fast-xs", "unsure_below": 0.8, "tta": True},
    "other second looks": {
        "name": "fast-xs",
        "unsure_below": 0.8,
        "tta": True,
        "flip": "none",
        "channels": 1,
    },
}


def flat(images: object, batch_size: int = 64) -> np.ndarray:
    return np.zeros((len(images), 3), np.float32)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "run", **CASES[request.param])
    engines.write_network(run, run.path / engines.NETWORK)
    return run


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("name", engines.PACKAGES)
def test_every_engine_gives_the_same_predictions(name: str, many: bool, run: Run) -> None:
    engine = engines.runtime(name, run, many=many)
    assert engine.class_names == run.class_names
    for images in (pictures(70, 32, 32, 3), pictures(5, 41, 29, 1), pictures(0, 32, 32, 3)):
        found, wanted = engine.logits(images), run.logits(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert np.array_equal(found.argmax(1), wanted.argmax(1))
        np.testing.assert_allclose(
            engine.probabilities(images), run.probabilities(images), atol=1e-4
        )


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_file_is_read_as_for_training(fit: Fit, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run = dataclasses.replace(run, preprocessing=dataclasses.replace(run.preprocessing, fit=fit))
    rule = run.preprocessing
    file = tmp_path / "picture.jpg"
    Image.fromarray(pictures(1, 300, 200, 3)[0]).save(file)
    wanted = read_sized(file, height=rule.height, width=rule.width, fit=fit)
    engine = engines.Torch(run)
    np.testing.assert_array_equal(engine.read(file, "picture"), wanted)
    np.testing.assert_array_equal(engine.read(file.read_bytes(), "picture"), wanted)
    (found,) = predict(run, [file], top=3)
    assert isinstance(found, Prediction)
    probabilities = run.probabilities(wanted[None])[0]
    assert dict(found.labels) == pytest.approx(
        dict(zip(run.class_names, probabilities.tolist(), strict=True)), abs=1e-6
    )


def test_many_pictures_are_distributed_and_returned_in_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    threads, sizes, all_there = set(), [], threading.Barrier(3)

    def brightness(x: np.ndarray) -> np.ndarray:
        all_there.wait(60)  # three at a time, or the barrier times out
        threads.add(threading.get_ident())
        sizes.append(len(x))
        return np.repeat(x.mean((1, 2, 3))[:, None], 3, axis=1)

    engine = engines.Runtime("made up", run, brightness, streams=3)
    images = pictures(6 * engines.PIECE, 32, 32, 3)
    found = engine.logits(images)
    np.testing.assert_allclose(found[:, 0], (images / 255).mean((1, 2, 3)), atol=1e-5)
    assert (len(threads), sizes) == (3, [engines.PIECE] * 6)
    sizes.clear()
    assert len(engine.logits(images[:9])) == 9
    assert sizes == [3, 3, 3]


def test_fastest_engine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    # PyTorch, PyTorch in parallel, ONNX Runtime, OpenVINO, in three rounds
    seconds = iter([3.0, 3.0, 1.1, 1.2, 3.0, 3.0, 9.0, 1.2, 3.0, 3.0, 1.0, 9.0])
    monkeypatch.setattr(engines, "usable_cores", lambda: 2)
    monkeypatch.setattr(engines, "_seconds", lambda work: next(seconds))
    assert engines.fastest(run).name == "ONNX Runtime"
    assert (
        engines.fastest(run).name == "ONNX Runtime"
    )  # no further values: it must not measure again
    assert json.loads((run.path / engines.CHOICE).read_text())["many"] == "ONNX Runtime"


def test_pytorch_is_used_if_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    seconds = cycle([1.0, 3.0, 2.0])
    monkeypatch.setattr(engines, "_seconds", lambda work: next(seconds))
    assert engines.fastest(run).name == "PyTorch"
    # for one picture the import of PyTorch takes longer than everything else
    assert engines.fastest(run, batch_size=1).name == "OpenVINO"


def test_parallel_pytorch_is_used_if_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", name="fast-xs", unsure_below=0.8, tta=True)
    monkeypatch.setattr(engines, "usable_cores", lambda: 2)
    seconds = cycle([2.0, 1.0, 3.0, 3.0])
    monkeypatch.setattr(engines, "_seconds", lambda work: next(seconds))
    before = torch.get_num_threads()
    for _ in range(2):  # measured, then read from the file
        engine = engines.fastest(run)
        assert (engine.name, engine.streams) == ("PyTorch", 2)
        assert engine._pool is not None  # type: ignore[attr-defined]
        found = engine._pool.submit(torch.get_num_threads).result()  # type: ignore[attr-defined]
        assert found == 1
        assert torch.get_num_threads() == before
        for count in (0, 1, 2, 70, 200):
            images = pictures(count, 32, 32, 3)
            np.testing.assert_allclose(engine.logits(images), run.logits(images), atol=1e-5)
    piece, threads = engine._piece, set()  # type: ignore[attr-defined]

    def noted(images: np.ndarray) -> np.ndarray:
        threads.add(current_thread().name)
        return piece(images)  # type: ignore[no-any-return]

    monkeypatch.setattr(engine, "_piece", noted)
    engine.logits(pictures(7, 32, 32, 3))
    assert threads == {
        "MainThread"
    }  # few pictures are computed by all of PyTorch's threads together
    engine.logits(pictures(8, 32, 32, 3))
    assert any(name.startswith("peewit-network") for name in threads)


def test_changed_weights_are_measured_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    images = pictures(3, 32, 32, 3)
    before = engines.fastest(run).logits(images)
    other = make_run(tmp_path / "other", seed=5)
    (run.path / WEIGHTS).write_bytes((other.path / WEIGHTS).read_bytes())
    after = engines.fastest(Run.open(run.path)).logits(images)
    np.testing.assert_allclose(after, other.logits(images), atol=1e-4)
    assert np.abs(after - before).max() > 0.01


def test_a_flipped_bit_in_the_network_for_the_runtimes_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    seconds = cycle([3.0, 1.0, 2.0])
    monkeypatch.setattr(engines, "_seconds", lambda work: next(seconds))
    assert engines.fastest(run).name == "ONNX Runtime"
    file = run.path / engines.NETWORK
    good = file.read_bytes()
    # in the exponent of a weight of the hidden layer
    weight = (
        next(iter(run.model().state_dict()["hidden.weight"].flatten()[40:41])).numpy().tobytes()
    )
    place = good.index(weight) + 3
    file.write_bytes(good[:place] + bytes([good[place] ^ 8]) + good[place + 1 :])
    images = pictures(3, 32, 32, 3)
    np.testing.assert_allclose(engines.fastest(run).logits(images), run.logits(images), atol=1e-4)
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"one": [], "many": {}}', '{"format": 1, "measured": 3}', "\0"]
)
def test_a_damaged_choice_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(engines, "PACKAGES", {})
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    stamp = engines._stamp(run, [])
    content = content.replace(
        '{"one"', f'{{"format": 1, "measured": "{stamp}", "network": null, "one"'
    )
    (run.path / engines.CHOICE).write_text(content)
    assert engines.fastest(run).name == "PyTorch"
    assert json.loads((run.path / engines.CHOICE).read_text())["many"] == "PyTorch"


@pytest.mark.parametrize("change", ["processor", "runtime"])
def test_choice_is_valid_for_one_machine(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    seconds = cycle([1.0, 3.0, 2.0])
    monkeypatch.setattr(engines, "_seconds", lambda work: next(seconds))
    assert engines.fastest(run).name == "PyTorch"
    seconds = cycle([3.0, 1.0] if change == "runtime" else [3.0, 1.0, 2.0])
    assert engines.fastest(run).name == "PyTorch"
    if change == "processor":
        monkeypatch.setattr(engines, "processor_name", lambda: "Another One")
    else:
        monkeypatch.setattr(engines, "PACKAGES", {"ONNX Runtime": "onnxruntime"})
    assert engines.fastest(run).name == "ONNX Runtime"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 9}'])
def test_damaged_choice_is_measured_again(content: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / engines.CHOICE).write_text(content)
    engine = engines.fastest(run)
    images = pictures(3, 32, 32, 3)
    np.testing.assert_allclose(engine.logits(images), run.logits(images), atol=1e-4)
    assert json.loads((run.path / engines.CHOICE).read_text())["format"] == engines.FORMAT


def test_a_broken_network_file_that_cannot_be_replaced_leaves_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(run: Run, file: Path) -> None:
        raise PeewitError("cannot write it")

    run = make_run(tmp_path / "run")
    (run.path / engines.NETWORK).write_bytes(b"\x08\x07broken")
    monkeypatch.setattr(engines, "write_network", read_only)
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    assert engines.fastest(run).name == "PyTorch"


def test_disagreeing_engine_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    wrong: dict[str, Callable[[bytes, bool], tuple[engines.Forward, int]]] = {
        name: lambda content, many: (flat, 1) for name in engines.PACKAGES
    }
    monkeypatch.setattr(engines, "LOADERS", wrong)
    assert engines.fastest(run).name == "PyTorch"


def test_without_other_engines_pytorch_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(engines, "find_spec", lambda package: None)
    assert engines.fastest(run).name == "PyTorch"
    assert not (run.path / engines.NETWORK).exists()


def test_engine_that_does_not_load_falls_back_to_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")

    def fail(content: bytes, many: bool) -> tuple[Any, Any]:
        raise ImportError("DLL load failed while importing onnxruntime_pybind11_state")

    monkeypatch.setattr(engines, "LOADERS", dict.fromkeys(engines.PACKAGES, fail))
    assert engines.fastest(run).name == "PyTorch"


def test_first_call_of_a_runtime_is_in_one_thread(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, tuple[int, ...]]] = []

    def load(content: bytes, many: bool) -> tuple[Callable[..., Any], int]:
        def forward(x: np.ndarray) -> np.ndarray:
            calls.append((threading.get_ident(), x.shape))
            return np.zeros((len(x), 3), np.float32)

        return forward, 2

    monkeypatch.setitem(engines.LOADERS, "OpenVINO", load)
    engines.runtime("OpenVINO", run, many=True)
    rule = run.preprocessing
    shape = (1, rule.height, rule.width, rule.channels)
    assert calls == [(threading.get_ident(), shape)]
