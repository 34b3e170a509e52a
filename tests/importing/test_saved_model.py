"""SavedModel folders: those that Keras wrote, and those that would harm, mislead or crash."""

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

import saved_models as made
from peewit.errors import PeewitError
from peewit.importing.keras import import_keras, read_model
from saved_model_golden import CLASSES, GOLDEN, pictures

NAMES = ["cat", "dog", "hare"]


@pytest.fixture(scope="session", params=["tf244", "tf_keras"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model``, as TensorFlow's Keras wrote it, and its logits."""
    place = tmp_path_factory.mktemp(request.param)
    shutil.unpack_archive(GOLDEN / f"saved_model_{request.param}.tar.xz", place, filter="data")
    return place


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sound folder of one dense layer."""
    return made.write_saved_model(tmp_path / "small")


def refused(folder: Path, why: str) -> None:
    with pytest.raises(PeewitError, match=why) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


def test_it_answers_as_the_keras_that_wrote_it(kept: Path, tmp_path: Path) -> None:
    run = import_keras(kept / "model", NAMES, out=tmp_path / "run")
    logits = np.load(kept / "logits.npy")
    assert logits.shape == (4, CLASSES)
    np.testing.assert_allclose(run.logits(pictures()), logits, atol=1e-5)
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["imported"]
    assert facts["format"] == "SavedModel"
    assert facts["file"] == "model"
    assert run.status == "imported"


def test_the_run_is_named_after_the_folder(kept: Path, tmp_path: Path) -> None:
    os.chdir(kept / "model")  # the fixture `isolated` goes back
    run = import_keras(".", NAMES, out=None)
    assert run.path == Path("runs/model")
    shutil.rmtree("runs")


def test_names_that_do_not_fit_leave_nothing(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(PeewitError, match="the model has 3 outputs"):
        import_keras(kept / "model", NAMES[:2], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("new", [False, True])
def test_what_is_written_by_hand_is_read(new: bool, tmp_path: Path) -> None:
    found = read_model(made.write_saved_model(tmp_path / "small", new=new))
    assert found.architecture.input_shape == (2, 2, 1)
    assert found.architecture.outputs == 2
    np.testing.assert_array_equal(found.arrays[0], made.KERNEL)
    np.testing.assert_array_equal(found.arrays[1], made.BIAS)


def test_the_sentence_names_the_folder(small: Path, tmp_path: Path) -> None:
    with pytest.raises(PeewitError) as caught:
        import_keras(small, NAMES[:2], out=tmp_path / "run")
    assert str(caught.value).startswith(f"cannot import {small}: ")
    assert not (tmp_path / "run").exists()


def test_a_folder_without_the_layers(small: Path) -> None:
    (small / "keras_metadata.pb").unlink()
    refused(small, r"not the layers .*, as model\.export .*save the model as a file")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    refused(tmp_path, "no SavedModel; name the folder that model.save wrote")


def test_layers_that_are_code(tmp_path: Path) -> None:
    layer = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEAAAAA"]}}
    config = {"class_name": "Sequential", "config": {"layers": [*first_layer(), layer]}}
    refused(made.write_saved_model(tmp_path / "x", config), "is a Lambda, which is code")


def first_layer() -> list[Any]:
    return made.CONFIG["config"]["layers"][:1]  # type: ignore[index]


def test_keras_own_classes_only(tmp_path: Path) -> None:
    layer = {"class_name": "Evil>Dense", "config": {"name": "evil"}}
    config = {"class_name": "Sequential", "config": {"layers": [*first_layer(), layer]}}
    refused(made.write_saved_model(tmp_path / "x", config), "layers that are read")


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
        ({"offset": 9}, "cut short"),
        ({"offset": 2**64 - 1}, "cut short"),
        ({"offset": 8}, "checksum is wrong"),
        ({"checksum": b"\0\0\0\0"}, "checksum is wrong"),
        ({"shard": 1}, "has no variables/variables.data-00001-of-00001"),
        ({"shard": 2**64 - 1}, "has no variables/variables.data-18446744073709551615-of"),
        ({"header": b""}, "has no variables/variables.data-00000-of-00000"),
        ({"header": made.field(1, 2**63)}, "has no variables/variables.data"),
        ({"header": made.field(2, 1)}, "the other order of bytes"),
        ({"header": b"\xff"}, "structures are damaged"),
    ],
)
def test_entries_that_lie(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    index = made.table(made.block(made.entries(**change)))
    refused(made.write_saved_model(tmp_path / "x", index=index), why)


def test_values_that_are_not_finite(small: Path) -> None:
    bad = made.KERNEL.copy()
    bad[0, 0] = np.inf
    index = made.entries(checksum=made.stored(bad.tobytes()))
    (small / "variables" / "variables.index").write_bytes(made.table(made.block(index)))
    (small / "variables" / made.DATA).write_bytes(bad.tobytes() + made.BIAS.tobytes())
    refused(small, "not finite")


def test_an_array_that_is_missing(tmp_path: Path) -> None:
    index = made.table(made.block(made.entry_bytes(b"", made.HEADER)))
    refused(made.write_saved_model(tmp_path / "x", index=index), "checkpoint has no layer_with")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize(
    "name",
    ["keras_metadata.pb", "variables/variables.index", f"variables/{made.DATA}", "variables"],
)
def test_links_to_outside(name: str, small: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (small / name).rename(outside)
    (small / name).symlink_to(outside)
    refused(small, "is a link to outside the folder")
    (small / name).unlink()
    (small / name).symlink_to(small / name)
    refused(small, "cannot be found|has no")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_within_and_to_the_folder(small: Path, tmp_path: Path) -> None:
    (small / "keras_metadata.pb").rename(small / "real")
    (small / "keras_metadata.pb").symlink_to("real")
    (tmp_path / "link").symlink_to(small)
    assert len(read_model(tmp_path / "link").arrays) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system here")
@pytest.mark.parametrize("name", ["keras_metadata.pb", f"variables/{made.DATA}"])
def test_pipes_and_folders_instead_of_files(name: str, small: Path) -> None:
    (small / name).unlink()
    os.mkfifo(small / name)  # to read it would wait for ever
    refused(small, "it has no")
    (small / name).unlink()
    (small / name).mkdir()
    refused(small, "it has no")


def test_files_without_end(small: Path) -> None:
    with (small / "keras_metadata.pb").open("r+b") as file:
        file.truncate(2**24 + 1)  # sparse: it takes no room
    refused(small, "has more than 16 MB")
    (small / "keras_metadata.pb").unlink()
    (small / "saved_model.pb").write_bytes(made.graph(b" " * (2**24 + 1)))
    refused(small, "has more than 16 MB")


@pytest.mark.parametrize(
    "config",
    [b"", b"{", b"[]", b"null", b"[" * 99_999, b"\xff\xfe", b'{"class_name": "__tuple__"}'],
)
def test_configurations_that_are_none(config: bytes, small: Path) -> None:
    (small / "keras_metadata.pb").write_bytes(made.metadata(config))
    refused(small, "not whole JSON|not Keras's|not the layers")


@pytest.mark.parametrize("content", [b"", b"\n", b"hello, I am no model", b"\xff" * 99])
def test_files_that_are_none(content: bytes, small: Path) -> None:
    (small / "keras_metadata.pb").write_bytes(content)
    refused(small, "describes no model|structures are")
    (small / "keras_metadata.pb").unlink()
    (small / "saved_model.pb").write_bytes(content)
    refused(small, "is empty|structures are")


def survives(folder: Path) -> None:
    """Read a folder that is sound or not: the only failure is a sentence."""
    try:
        read_model(folder)
    except PeewitError as error:
        assert "\n" not in str(error)  # noqa: PT017


FILES = ["saved_model.pb", "keras_metadata.pb", "variables/variables.index"]


@pytest.mark.parametrize("new", [False, True])
def test_cut_anywhere(new: bool, tmp_path: Path) -> None:
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
    """Return the content with some bytes changed, put in, taken out or doubled."""
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
def test_bytes_that_fell_over(new: bool, tmp_path: Path) -> None:
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


def test_damage_with_right_checksums(small: Path) -> None:
    # what an attacker does: the checksums are no secret
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


def test_bits_that_fell_over_in_a_real_one(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(kept / "model", folder)
    random = np.random.default_rng(2)
    data: Callable[[str], bytes] = lambda name: (kept / "model" / name).read_bytes()  # noqa: E731
    for name in [*FILES, f"variables/{made.DATA}"]:
        if (folder / name).exists():
            for _ in range(5):
                (folder / name).write_bytes(changed(data(name), random))
                survives(folder)
            (folder / name).write_bytes(data(name))
