"""Malicious and damaged files: a one-line error each, no code is run, nothing is left behind."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from made_runs import make_run
from peewit.errors import PeewitError, UsageError
from peewit.export import job
from peewit.importing.keras import import_keras
from peewit.importing.reading import read_model

NAMES = ["cat", "dog", "hare"]


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid ``net.keras`` and ``net.h5``."""
    place = tmp_path_factory.mktemp("valid")
    job.export(make_run(place / "run"), "keras", raw=True, out=place / "net.keras")
    return place


def refused(path: Path, why: str) -> None:
    # in this process, which is faster; tests/importing/test_isolation.py tests the other one
    with pytest.raises(PeewitError, match=why) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def changed_h5(valid: Path, path: Path, change: Callable[[Any], None]) -> Path:
    path.write_bytes((valid / "net.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def changed_config(valid: Path, path: Path, change: Callable[[list[Any]], None]) -> Path:
    def in_file(file: Any) -> None:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)

    return changed_h5(valid, path, in_file)


def archive_with(valid: Path, path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(valid / "net.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            key = name.replace(".", "_")
            new.writestr(name, members.pop(key) if key in members else old.read(name))
    return path


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_exported_files_can_be_imported(name: str, valid: Path, tmp_path: Path) -> None:
    from peewit.runs.run import Run

    run = import_keras(valid / name, NAMES, out=tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(run.logits(images), Run.open(valid / "run").logits(images))


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../b", "..\\evil"])
def test_a_member_that_points_outside_the_archive(name: str, valid: Path, tmp_path: Path) -> None:
    path = archive_with(valid, tmp_path / "x.keras")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, "evil")
    refused(path, "points outside")


def test_a_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * (2**24 + 1))
        file.writestr("model.weights.h5", b"")
    refused(path, "unpacks to more than 1 MB")


def test_duplicate_and_missing_members(valid: Path, tmp_path: Path) -> None:
    path = archive_with(valid, tmp_path / "x.keras")
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("config.json", "{}")
    refused(path, r"without exactly one config\.json")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "")
    refused(path, r"without exactly one config\.json")


def test_zip_features_that_keras_does_not_use(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("config.json", "{}")
        file.writestr("model.weights.h5", "")
    refused(path, "compressed in a way")
    path = archive_with(valid, path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("\xe9.txt", "")
    path.write_bytes(path.read_bytes().replace(b"\xc3\xa9.txt", b"\xc3\x28.txt"))
    refused(path, r"not a complete \.keras archive")


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_truncated_files(name: str, share: float, valid: Path, tmp_path: Path) -> None:
    content = (valid / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: max(9, int(len(content) * share))])
    refused(path, "not a complete|damaged|neither HDF5")


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_random_changes(name: str, valid: Path, tmp_path: Path) -> None:
    content = bytearray((valid / name).read_bytes())
    random = np.random.default_rng(0)
    path = tmp_path / name
    for _ in range(30):
        broken = bytearray(content)
        # in the first half per cent, where the headers are
        for place in random.integers(0, len(content) // 200, 8):
            broken[place] = random.integers(256)
        path.write_bytes(broken)
        with suppress(PeewitError):
            read_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am not a model", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"]
)
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    refused(path, "empty|neither|not a complete")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "missing.h5", "no such file")
    (tmp_path / "saved").mkdir()
    refused(tmp_path / "saved", "not a SavedModel")


def lambda_layer(layers: list[Any]) -> None:
    code = ["4wEAAAAA", None, None]
    layers.insert(1, {"class_name": "Lambda", "config": {"name": "evil", "function": code}})


def custom(layers: list[Any]) -> None:
    layers[1]["registered_name"] = "evil>Conv2D"


def foreign(layers: list[Any]) -> None:
    layers[1]["module"] = "os.path"


def unknown(layers: list[Any]) -> None:
    layers[1]["class_name"] = "LSTM"


def activation(layers: list[Any]) -> None:
    layers[1]["config"]["activation"] = "evil>boom"


def huge(layers: list[Any]) -> None:
    layers[1]["config"]["filters"] = 2**26


def many(layers: list[Any]) -> None:
    # no single one is too large, but all together are
    config = layers[1]["config"] | {"filters": 2000, "padding": "same"}
    layers[1:1] = [{"class_name": "Conv2D", "config": config | {"name": f"c{i}"}} for i in range(9)]


def wide(layers: list[Any]) -> None:
    layers[0]["config"]["batch_input_shape"] = [None, 32000, 32000, 3]


def endless_number(layers: list[Any]) -> None:
    norm = next(layer for layer in layers if layer["class_name"] == "BatchNormalization")
    norm["config"]["epsilon"] = 10**400


def negative(layers: list[Any]) -> None:
    layers[1]["config"]["filters"] = -1


def text(layers: list[Any]) -> None:
    layers[1]["config"]["filters"] = "many"


def strided(layers: list[Any]) -> None:
    layers[1]["config"]["strides"] = [2, 2]


def other_sizes(layers: list[Any]) -> None:
    layers[1]["config"]["filters"] = 32


def tiny(layers: list[Any]) -> None:
    layers[0]["config"]["batch_input_shape"] = [None, 4, 4, 3]


def unbounded(layers: list[Any]) -> None:
    layers[0]["config"]["batch_input_shape"] = [None, None, None, 3]


def nothing(layers: list[Any]) -> None:
    layers.clear()


def long_name(layers: list[Any]) -> None:
    layers[1]["config"]["name"] = "x" * 10**5


def long_value(layers: list[Any]) -> None:
    layers[1]["config"]["strides"] = "x" * 10**5


def large(layers: list[Any]) -> None:
    layers[1]["config"]["comment"] = "x" * 2**20


def no_config(layers: list[Any]) -> None:
    layers[2] = {"class_name": "Dense"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda_layer, "is a Lambda"),
        (custom, "supported layers"),
        (foreign, "supported layers"),
        (unknown, "is a LSTM; supported layers"),
        (activation, "has the activation evil"),
        (huge, "more than .* weights"),
        (many, "more than .* weights"),
        (wide, "too large"),
        (endless_number, "not a Keras configuration"),
        (negative, "unsupported value for filters: -1"),
        (text, "unsupported value for filters: many"),
        (strided, "unsupported value for strides"),
        (other_sizes, "of shape"),
        (tiny, "input smaller than"),
        (unbounded, "not height, width and channels"),
        (long_name, "the name of a layer has 100,000 characters"),
        (long_value, "value for strides: x"),
        (large, "larger than 1 MB"),
        (nothing, "not a Keras configuration"),
        (no_config, "not a Keras configuration"),
    ],
)
def test_unsupported_layers_are_refused(
    change: Callable[[list[Any]], None], why: str, valid: Path, tmp_path: Path
) -> None:
    refused(changed_config(valid, tmp_path / "x.h5", change), why)


@pytest.mark.parametrize(
    "config", ["", "{", "[]", "null", '{"class_name": "Sequential"}', "[" * 99999]
)
def test_invalid_configurations_are_refused(config: str, valid: Path, tmp_path: Path) -> None:
    path = archive_with(valid, tmp_path / "x.keras", config_json=config.encode())
    refused(path, "not valid JSON|not a Keras configuration")


def test_another_kind_of_model(valid: Path, tmp_path: Path) -> None:
    config = json.dumps({"class_name": "Functional", "config": {}}).encode()
    path = archive_with(valid, tmp_path / "x.keras", config_json=config)
    refused(path, "only Sequential")


KERNEL = "model_weights/conv2d/conv2d/kernel:0"


def external_link(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/model_weights/dense/dense/kernel:0")


def external_storage(file: Any) -> None:
    shape = file[KERNEL].shape
    del file[KERNEL]
    file.create_dataset(KERNEL, shape, "f4", external=[("/etc/passwd", 0, 2**20)])


def virtual(file: Any) -> None:
    shape = file[KERNEL].shape
    del file[KERNEL]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
    file.create_virtual_dataset(KERNEL, layout)


def group_instead(file: Any) -> None:
    del file[KERNEL]
    file.create_group(KERNEL)


def missing(file: Any) -> None:
    del file[KERNEL]


def objects(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, data=["text"])


def endless(file: Any) -> None:
    file[KERNEL][0] = np.inf


def wrong_shape(file: Any) -> None:
    values = file[KERNEL][...]
    del file[KERNEL]
    file.create_dataset(KERNEL, data=values[..., :5])


def no_names(file: Any) -> None:
    del file["model_weights/conv2d"].attrs["weight_names"]


def names_outside(file: Any) -> None:
    file["model_weights/conv2d"].attrs["weight_names"] = [b"../../kernel:0", b"conv2d/bias:0"]


def weights_only(file: Any) -> None:
    del file.attrs["model_config"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (external_link, "is a soft or external link"),
        (soft_link, "is a soft or external link"),
        (external_storage, "is not an array in the file"),
        (virtual, "is not an array in the file"),
        (group_instead, "is not an array in the file"),
        (missing, "it has no"),
        (objects, "not floats"),
        (endless, "not finite"),
        (wrong_shape, "not floats of shape"),
        (no_names, "damaged"),
        (names_outside, "it has no"),
        (weights_only, "weights only"),
    ],
)
def test_unusual_arrays_are_refused(
    change: Callable[[Any], None], why: str, valid: Path, tmp_path: Path
) -> None:
    refused(changed_h5(valid, tmp_path / "x.h5", change), why)


def test_links_in_a_keras_archive_are_refused(valid: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(valid / "net.keras") as file:
        buffer = io.BytesIO(file.read("model.weights.h5"))
    with h5py.File(buffer, "r+") as weights:
        del weights["layers/conv2d/vars/0"]
        weights["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")
    path = archive_with(valid, tmp_path / "x.keras", model_weights_h5=buffer.getvalue())
    refused(path, "is a soft or external link")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["cat", "dog"], "the model has 3 outputs"),
        (["cat", "dog", "dog"], "two classes have the name 'dog'"),
        ([], "the model has 3 outputs"),
    ],
)
def test_wrong_class_names_are_refused(
    names: list[str], why: str, valid: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        import_keras(valid / "net.h5", names, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_not_overwritten(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(UsageError):
        import_keras(valid / "net.h5", NAMES, out=tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["mine"]
