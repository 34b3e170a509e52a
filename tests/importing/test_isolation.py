"""Damaged files that cost time or memory, or raise anything: one sentence, and nothing is left."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saved_model_files as made
from made_runs import make_run
from peewit.__main__ import main
from peewit.errors import PeewitError
from peewit.export import job
from peewit.importing import isolation, reading
from peewit.importing.isolation import read_isolated
from peewit.importing.keras import import_keras
from peewit.importing.reading import read_model

NAMES = ["cat", "dog", "hare"]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid ``net.keras``, ``net.h5`` and SavedModel ``net``."""
    place = tmp_path_factory.mktemp("valid")
    job.export(make_run(place / "run"), "keras", raw=True, out=place / "net.keras")
    made.write_saved_model(place / "net")
    return place


def changed(valid: Path, path: Path, place: int, byte: int) -> Path:
    content = bytearray((valid / "net.h5").read_bytes())
    assert content[place] != byte
    content[place] = byte
    path.write_bytes(content)
    return path


@pytest.fixture
def endless(valid: Path, tmp_path: Path) -> Path:
    """A file with one changed byte, for which the HDF5 library never returns.

    It is the size of an object in the global heap, after which the library finds an object of size
    0, and then that one again.
    """
    name = b"dense_1/kernel:0"
    at = (valid / "net.h5").read_bytes().index(struct.pack("<Q", len(name)) + name)
    return changed(valid, tmp_path / "endless.h5", at, 2)


@pytest.fixture
def gigabytes(valid: Path, tmp_path: Path) -> Path:
    """A file with one changed byte, for which the HDF5 library allocates 4 GB.

    It is the highest byte of the length of a name in the list of a layer's weights.
    """
    name = b"batch_normalization_1/moving_variance:0"
    content = (valid / "net.h5").read_bytes()
    assert content.count(name) == 1
    # the list has the length of the name, the address of the heap, and the number in the heap
    heap = content.rindex(b"GCOL", 0, content.index(name))
    at = content.index(struct.pack("<IQ", len(name), heap)) + 3
    return changed(valid, tmp_path / "gigabytes.h5", at, 255)


@pytest.mark.parametrize("name", ["net.h5", "net.keras", "net"])
def test_the_child_reads_the_same(name: str, valid: Path) -> None:
    here, there = read_model(valid / name), read_isolated(valid / name)
    assert there.format == here.format
    assert there.architecture.input_shape == here.architecture.input_shape
    assert [vars(layer) for layer in there.architecture.layers] == [
        # tuples are lists in JSON
        vars(layer) | {"settings": {k: _listed(v) for k, v in layer.settings.items()}}
        for layer in here.architecture.layers
    ]
    assert len(there.arrays) == len(here.arrays) > 0
    for ours, theirs in zip(here.arrays, there.arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype == np.float32


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_an_endless_loop_ends_in_a_sentence(
    endless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(isolation, "SECONDS", 0.5)
    out = tmp_path / "run"
    assert main(["import", str(endless), "--classes", "cat,dog,hare", "--out", str(out)]) == 1
    said = capfd.readouterr().err
    assert re.fullmatch(r"peewit: cannot import .*: reading it took longer than \d+ s.*\n", said)
    assert not out.exists()


def test_the_child_ends_by_itself_if_this_process_was_killed(endless: Path) -> None:
    code = f"from peewit.importing.isolation import child; child({str(endless)!r}, -4.5, 2**30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"Timeout" in done.stderr


def test_four_gigabytes_end_in_a_sentence(gigabytes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(PeewitError, match=r"gigabytes\.h5: .*save it again"):
        import_keras(gigabytes, NAMES, out=out)
    assert not out.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_the_child_never_has_four_gigabytes(gigabytes: Path, tmp_path: Path) -> None:
    # in a process of its own, because children of earlier tests count too
    code = (
        "import resource, sys; from peewit.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    arguments = ["import", str(gigabytes), "--classes", ",".join(NAMES)]
    arguments += ["--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    exit_code, kilobytes = map(int, done.stdout.split())
    assert exit_code == 1
    assert kilobytes < 2 * 2**20


def test_the_memory_of_the_child_is_limited() -> None:
    code = "from peewit.system import child_limits as i; i.limit_memory(2**29); bytearray(2**29)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stderr.endswith(b"MemoryError" + os.linesep.encode())


@pytest.mark.parametrize(
    "error",
    [OverflowError, RecursionError, struct.error, KeyError, MemoryError, IndexError, UnicodeError],
)
def test_whatever_a_library_raises_means_a_damaged_file(
    error: type[Exception], valid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(reading.keras_files, "read_archive", fail)
    with pytest.raises(PeewitError, match=f"not written by Keras .{error.__name__}"):
        read_model(valid / "net.keras")


def test_a_crash_ends_in_a_sentence(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashed(*args: Any, **settings: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(args, -11, isolation.READY, b"")

    monkeypatch.setattr(subprocess, "run", crashed)
    with pytest.raises(PeewitError, match="crash"):
        read_isolated(valid / "net.h5")


def test_a_child_that_does_not_start_is_not_the_fault_of_the_file(
    valid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(PeewitError, match=r"the process that reads it did not start: .*Error"):
        read_isolated(valid / "net.h5")


def test_ctrl_c_kills_the_child(endless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], *_: Any, **__: Any) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_isolated(endless)
    assert len(started) == 1
    assert started[0].returncode not in (None, 0)


def test_modules_in_the_working_directory_are_not_run(
    valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    for name in ("h5py", "json", "numpy", "peewit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(1)")
    assert read_isolated(valid / "net.h5").format == ".h5"
