"""SavedModel folders: those written by Keras, and malicious or damaged ones."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saved_model_files as made
from peewit.errors import PeewitError
from peewit.importing.keras import import_keras
from peewit.importing.reading import read_model
from saved_model_golden import CLASSES, GOLDEN, pictures

NAMES = ["cat", "dog", "hare"]


@pytest.fixture(scope="session", params=["tf244", "tf_keras"])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model``, a SavedModel written by TensorFlow's Keras, and its logits."""
    place = tmp_path_factory.mktemp(request.param)
    shutil.unpack_archive(GOLDEN / f"saved_model_{request.param}.tar.xz", place, filter="data")
    return place


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A valid SavedModel with one dense layer."""
    return made.write_saved_model(tmp_path / "small")


def refused(folder: Path, why: str) -> None:
    with pytest.raises(PeewitError, match=why) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


def test_logits_agree_with_the_keras_that_wrote_it(golden: Path, tmp_path: Path) -> None:
    run = import_keras(golden / "model", NAMES, out=tmp_path / "run")
    logits = np.load(golden / "logits.npy")
    assert logits.shape == (4, CLASSES)
    np.testing.assert_allclose(run.logits(pictures()), logits, atol=1e-5)
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["imported"]
    assert facts["format"] == "SavedModel"
    assert facts["file"] == "model"
    assert run.status == "imported"


def test_the_run_is_named_after_the_folder(golden: Path, tmp_path: Path) -> None:
    os.chdir(golden / "model")  # the fixture `isolated` restores it
    run = import_keras(".", NAMES, out=None)
    assert run.path == Path("runs/model")
    shutil.rmtree("runs")


def test_a_wrong_number_of_names_leaves_nothing(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match="the model has 3 outputs"):
        import_keras(golden / "model", NAMES[:2], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("new", [False, True])
def test_the_hand_written_folder_is_read(new: bool, tmp_path: Path) -> None:
    found = read_model(made.write_saved_model(tmp_path / "small", new=new))
    assert found.architecture.input_shape == (2, 2, 1)
    assert found.architecture.outputs == 2
    np.testing.assert_array_equal(found.arrays[0], made.KERNEL)
    np.testing.assert_array_equal(found.arrays[1], made.BIAS)


def test_the_error_names_the_folder(small: Path, tmp_path: Path) -> None:
    with pytest.raises(PeewitError) as caught:
        import_keras(small, NAMES[:2], out=tmp_path / "run")
    assert str(caught.value).startswith(f"cannot import {small}: ")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_the_layers(small: Path) -> None:
    (small / "keras_metadata.pb").unlink()
    refused(small, r"not the layers .* model\.export .*model\.save")


def test_another_folder(tmp_path: Path) -> None:
    refused(tmp_path, r"not a SavedModel: it has no saved_model\.pb")


def test_layers_with_code_are_refused(tmp_path: Path) -> None:
    layer = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEAAAAA"]}}
    config = {"class_name": "Sequential", "config": {"layers": [*first_layer(), layer]}}
    refused(made.write_saved_model(tmp_path / "x", config), "is a Lambda")


def first_layer() -> list[Any]:
    return made.CONFIG["config"]["layers"][:1]  # type: ignore[index]


def test_custom_classes_are_refused(tmp_path: Path) -> None:
    layer = {"class_name": "Evil>Dense", "config": {"name": "evil"}}
    config = {"class_name": "Sequential", "config": {"layers": [*first_layer(), layer]}}
    refused(made.write_saved_model(tmp_path / "x", config), "supported layers")


ONE = np.float32([[1]])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": 7}, "not floats of shape"),
        ({"kind": 2}, "not stored in one piece"),
        ({"kind": 2**63}, "not floats of shape"),
        ({"shape": (2, 4)}, "not floats of shape"),
        ({"shape": (2**40, 2**40)}, "not floats of shape"),
        ({"shape": ()}, "not floats of shape"),
        ({"size": 31}, "not stored in one piece"),
        ({"size": 2**62}, "not stored in one piece"),
        ({"more": made.field(7, b"")}, "not stored in one piece"),
        ({"offset": 9}, "truncated"),
        ({"offset": 2**64 - 1}, "truncated"),
        ({"offset": 8}, "checksum does not match"),
        ({"checksum": b"\0\0\0\0"}, "checksum does not match"),
        ({"shard": 1}, "has no variables/variables.data-00001-of-00001"),
        ({"shard": 2**64 - 1}, "has no variables/variables.data-18446744073709551615-of"),
        ({"header": b""}, "has no variables/variables.data-00000-of-00000"),
        ({"header": made.field(1, 2**63)}, "has no variables/variables.data"),
        ({"header": made.field(2, 1)}, "big-endian"),
        ({"header": b"\xff"}, "message in it is damaged"),
    ],
)
def test_false_entries_are_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    index = made.table(made.block(made.entries(**change)))
    refused(made.write_saved_model(tmp_path / "x", index=index), why)


def test_non_finite_values_are_refused(small: Path) -> None:
    bad = made.KERNEL.copy()
    bad[0, 0] = np.inf
    index = made.entries(checksum=made.stored(bad.tobytes()))
    (small / "variables" / "variables.index").write_bytes(made.table(made.block(index)))
    (small / "variables" / made.DATA).write_bytes(bad.tobytes() + made.BIAS.tobytes())
    refused(small, "not finite")


def test_a_missing_array(tmp_path: Path) -> None:
    index = made.table(made.block(made.entry_bytes(b"", made.HEADER)))
    refused(made.write_saved_model(tmp_path / "x", index=index), "checkpoint has no layer_with")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name",
    ["keras_metadata.pb", "variables/variables.index", f"variables/{made.DATA}", "variables"],
)
def test_links_out_of_the_folder_are_refused(name: str, small: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (small / name).rename(outside)
    (small / name).symlink_to(outside)
    refused(small, "leads out of the folder")
    (small / name).unlink()
    (small / name).symlink_to(small / name)
    refused(small, "cannot be found|has no")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_within_and_to_the_folder_are_followed(small: Path, tmp_path: Path) -> None:
    (small / "keras_metadata.pb").rename(small / "real")
    (small / "keras_metadata.pb").symlink_to("real")
    (tmp_path / "link").symlink_to(small)
    assert len(read_model(tmp_path / "link").arrays) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["keras_metadata.pb", f"variables/{made.DATA}"])
def test_pipes_and_folders_instead_of_files(name: str, small: Path) -> None:
    (small / name).unlink()
    os.mkfifo(small / name)  # reading it would block for ever
    refused(small, "it has no")
    (small / name).unlink()
    (small / name).mkdir()
    refused(small, "it has no")


def test_oversized_files_are_refused(small: Path) -> None:
    with (small / "keras_metadata.pb").open("r+b") as file:
        file.truncate(2**24 + 1)  # sparse: it takes no disk space
    refused(small, "larger than 16 MB")
    (small / "keras_metadata.pb").unlink()
    (small / "saved_model.pb").write_bytes(made.graph(b" " * (2**24 + 1)))
    refused(small, "larger than 16 MB")


@pytest.mark.parametrize(
    "config",
    [b"", b"{", b"[]", b"null", b"[" * 99_999, b"\xff\xfe", b'{"class_name": "__tuple__"}'],
)
def test_invalid_configurations_are_refused(config: bytes, small: Path) -> None:
    (small / "keras_metadata.pb").write_bytes(made.metadata(config))
    refused(small, "not valid JSON|not a Keras configuration|not the layers")


@pytest.mark.parametrize("content", [b"", b"\n", b"hello, I am no model", b"\xff" * 99])
def test_invalid_files_are_refused(content: bytes, small: Path) -> None:
    (small / "keras_metadata.pb").write_bytes(content)
    refused(small, "does not describe a model|message in it is")
    (small / "keras_metadata.pb").unlink()
    (small / "saved_model.pb").write_bytes(content)
    refused(small, "is empty|message in it is")


def survives(folder: Path) -> None:
    """Read a folder that may be damaged: the only exception is a PeewitError of one line."""
    try:
        read_model(folder)
    except PeewitError as error:
        assert "\n" not in str(error)  # noqa: PT017


FILES = ["saved_model.pb", "keras_metadata.pb", "variables/variables.index"]


@pytest.mark.parametrize("new", [False, True])
def test_truncation_at_any_position(new: bool, tmp_path: Path) -> None:
    folder = made.write_saved_model(tmp_path / "x", new=new)
    for name in [*FILES, f"variables/{made.DATA}"]:
        if (folder / name).exists():
            content = (folder / name).read_bytes()
            for length in range(0, len(content), 5):
                (folder / name).write_bytes(content[:length])
                survives(folder)
            (folder / name).write_bytes(content)
    assert len(read_model(folder).arrays) == 2


def changed(content: bytes, random: np.random.Generator) -> bytes:
    """Return the content with some bytes changed, inserted, removed or repeated."""
    found = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(found) + 1))
        match random.integers(4):
            case 0:
                found[at : at + 1] = random.bytes(1)
            case 1:
                found[at:at] = random.bytes(int(random.integers(1, 12)))
            case 2:
                del found[at : at + int(random.integers(1, 12))]
            case _:
                found[at:at] = found[at : at + int(random.integers(1, 40))]
    return bytes(found)


@pytest.mark.parametrize("new", [False, True])
def test_random_changes(new: bool, tmp_path: Path) -> None:
    folder = made.write_saved_model(tmp_path / "x", new=new)
    random = np.random.default_rng(0)
    for name in FILES[1:] if new else FILES[:1]:
        content = (folder / name).read_bytes()
        for _ in range(100):
            (folder / name).write_bytes(changed(content, random))
            survives(folder)
        for _ in range(50):
            (folder / name).write_bytes(random.bytes(int(random.integers(200))))
            survives(folder)
        (folder / name).write_bytes(content)


def test_random_changes_with_valid_checksums(small: Path) -> None:
    # as an attacker would do, since the checksums can be computed by anybody
    random = np.random.default_rng(1)
    good = made.entries()
    handles = made.entry_bytes(b"0", made.varint(0) + made.varint(len(made.block(good)) - 5))
    for number in range(200):
        if number % 2:
            index = made.table(made.block(changed(good, random)))
        else:
            index = made.table_of(made.block(good), changed(handles, random))
        (small / "variables" / "variables.index").write_bytes(index)
        survives(small)


def test_random_changes_to_a_real_model(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden / "model", folder)
    random = np.random.default_rng(2)
    data: Callable[[str], bytes] = lambda name: (golden / "model" / name).read_bytes()  # noqa: E731
    for name in [*FILES, f"variables/{made.DATA}"]:
        if (folder / name).exists():
            for _ in range(5):
                (folder / name).write_bytes(changed(data(name), random))
                survives(folder)
            (folder / name).write_bytes(data(name))
