"""Encoders in ONNX files: their features in all forms, and files that are none."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from made_encoders import BYTES, FEATURES, HALF, encoder, reference, saved
from peewit.errors import PeewitError
from peewit.models.encoders import encoder as encoders
from peewit.models.encoders.contents import read_contents
from peewit.models.encoders.encoder import Encoder
from peewit.models.encoders.trial import try_encoder

PICTURES = np.random.default_rng(1).random((5, 16, 16, 3), np.float32)


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use one of the engines, as if it was the only one that is installed."""
    monkeypatch.setattr(encoders, "find_spec", lambda name: name == request.param or None)
    return str(request.param)


@pytest.mark.parametrize("form", ["map", "tokens", "class token", "vector"])
def test_features_of_all_outputs(form: str, tmp_path: Path, engine: str) -> None:
    found = Encoder(saved(tmp_path, encoder(form)))
    assert (found.width, found.engine.partition("-")[0]) == (FEATURES, engine)
    np.testing.assert_allclose(found.features(PICTURES), reference(PICTURES, form), atol=1e-5)
    assert found.features(PICTURES[:0]).shape == (0, FEATURES)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"channels_last": True}, 1e-5),
        ({"kind": HALF}, 2e-2),
        ({"kind": BYTES}, 2e-2),
        ({"kind": BYTES, "channels_last": True}, 2e-2),
        ({"shape": [1, 3, 16, 16]}, 1e-5),
        ({"shape": [3, 3, 16, 16]}, 1e-5),
        ({"shape": ["N", "C", "H", "W"]}, 1e-5),
    ],
)
def test_features_of_all_inputs(
    options: dict[str, Any], tolerance: float, tmp_path: Path, engine: str
) -> None:
    found = Encoder(saved(tmp_path, encoder(**options)), size=16)
    np.testing.assert_allclose(found.features(PICTURES), reference(PICTURES), atol=tolerance)
    assert found.contents.batch is None


def test_a_fixed_number_of_pictures_at_a_time(tmp_path: Path, engine: str) -> None:
    model = encoder("tokens", shape=[2, 3, 16, 16])
    # the batch size is among the constants, as exporters write it
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([2, 6, 16]), "flat"))
    found = Encoder(saved(tmp_path, model))
    assert found.contents.batch == 2
    np.testing.assert_allclose(found.features(PICTURES), reference(PICTURES), atol=1e-5)


def test_the_output_is_chosen(tmp_path: Path) -> None:
    model = encoder("vector")
    model.graph.output.insert(0, helper.make_tensor_value_info("count", TensorProto.INT64, [1]))
    model.graph.node.append(helper.make_node("Shape", ["pixels"], ["count"]))
    model.graph.output.append(
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", FEATURES, 4, 4])
    )
    file = saved(tmp_path, model)
    assert read_contents(file).output == "vector"
    assert Encoder(file, "map").pooling == "mean of positions"
    for name in ("count", "missing"):
        with pytest.raises(PeewitError, match="output"):
            Encoder(file, name)


def test_the_trial_finds_what_the_file_says(tmp_path: Path) -> None:
    metadata = {"image_mean": "[0.5, 0.4, 0.3]", "image_std": "[0.2, 0.2, 0.1]"}
    found = try_encoder(saved(tmp_path, encoder("class token", metadata=metadata)))
    assert (found.features, found.size, found.pooling) == (FEATURES, 16, "class token")
    assert found.normalisation == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


def broken(change: str) -> onnx.ModelProto:
    if change == "operator":
        custom = helper.make_node("Gelu", ["map"], ["other"], domain="com.microsoft")
        return encoder(more=[custom])
    if change == "nested operator":
        inner = helper.make_graph(
            [helper.make_node("Run", [], ["y"], domain="custom")],
            "inner",
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        )
        chosen = helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
        return encoder(more=[chosen])
    if change == "inputs":
        model = encoder()
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
        return model
    if change == "weights elsewhere":
        model = encoder()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        return model
    if change == "constant":
        model = encoder()
        model.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.zeros((FEATURES, 3, 4, 4), np.float32), "kernel")
        )
        return model
    if change == "not finite":
        model = encoder()
        model.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.full((FEATURES, 3, 4, 4), np.inf, np.float32), "kernel")
        )
        return model
    options: dict[str, Any] = {
        "text": {"shape": ["N", 77], "kind": TensorProto.INT64},
        "grey": {"shape": ["N", 1, 16, 16]},
        "not square": {"shape": ["N", 3, 16, 32]},
        "any size": {"shape": ["N", 3, "H", "W"]},
        "huge": {"shape": ["N", 3, 10**6, 10**6]},
        "old": {"opset": 11},
        "metadata": {"metadata": {"image_mean": "much", "image_std": "[1, 1, 1]"}},
    }[change]
    return encoder(**options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("operator", "com.microsoft"),
        ("nested operator", "custom"),
        ("inputs", "2 inputs"),
        ("weights elsewhere", "another file"),
        ("constant", "do not depend"),
        ("not finite", "finite"),
        ("text", "not images"),
        ("grey", "three channels"),
        ("not square", "square"),
        ("any size", "--image-size"),
        ("huge", "shape"),
        ("old", "opset"),
        ("metadata", "image_mean"),
    ],
)
def test_other_files_are_refused(change: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match=reason):
        Encoder(saved(tmp_path, broken(change)))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 a zip archive"])
def test_a_file_that_is_not_onnx(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(content)
    with pytest.raises(PeewitError, match="not an ONNX file"):
        try_encoder(file)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(PeewitError, match="cannot use"):
            try_encoder(path)


def test_a_size_that_the_file_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match="16 x 16"):
        Encoder(saved(tmp_path), size=32)


def test_damage_is_found_by_the_checksum(tmp_path: Path) -> None:
    file = saved(tmp_path)
    right = Encoder(file).contents.sha256
    assert Encoder(file, sha256=right).width == FEATURES
    with pytest.raises(PeewitError, match="damaged"):
        Encoder(file, sha256="0" * 64)


def test_flipped_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    content = saved(tmp_path).read_bytes()
    random = np.random.default_rng(7)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = int(random.integers(256))
        file = tmp_path / "damaged.onnx"
        file.write_bytes(bytes(damaged))
        with suppress(PeewitError):  # and nothing else
            assert read_contents(file).size == 16


def test_an_endless_loop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peewit.models.encoders import trial

    monkeypatch.setattr(trial, "SECONDS", 0.01)
    monkeypatch.setattr(trial, "BYTES_PER_SECOND", 2**40)
    with pytest.raises(PeewitError, match="took longer"):
        try_encoder(saved(tmp_path))


def test_a_batch_size_that_the_nodes_contradict(tmp_path: Path, engine: str) -> None:
    model = encoder("tokens")
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 6, 16]), "flat"))
    found = Encoder(saved(tmp_path, model))
    assert found.contents.batch == 1
    np.testing.assert_allclose(found.features(PICTURES), reference(PICTURES), atol=1e-5)
