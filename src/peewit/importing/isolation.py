"""Read a Keras model in a child process with limits of time and memory.

One changed byte in an HDF5 file can make the HDF5 library loop forever or allocate gigabytes, and
nothing can interrupt it within its process. So a child reads the file and sends back plain values:
a line of JSON, then the arrays as bytes. Starting it takes 0.2 s.

The child has its limits from itself, so that it ends even if this process is killed: the time from
a thread of the interpreter that does not need the GIL (``faulthandler``), the memory from the
operating system. Windows has no such limit of memory, and macOS does not enforce it; there only the
time is limited.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from peewit.errors import PeewitError
from peewit.importing.architecture import MAX_VALUES, Architecture, Array, Layer, damaged
from peewit.importing.reading import KerasModel, check_there, read_model
from peewit.system.child_limits import limit_memory, limit_time

READY = b"ready\n"
# Reading the tutorial's network takes 0.1 s and 10 MB, and sound files are read at more than
# 100 MB/s: a busy machine may be 100 times as slow
SECONDS, BYTES_PER_SECOND = 20.0, 2**20
# interpreter and libraries take 0.1 GB; the content of a file, its arrays and their conversion to
# float32 take up to 4 bytes per byte of the file
MEMORY, MEMORY_PER_BYTE = 2**30, 4
# sizes up to that of the largest model that is read count: float64, and an optimiser's two moments
MAX_COUNTED = 3 * 8 * MAX_VALUES


def read_isolated(path: Path) -> KerasModel:
    """Read a model as ``reading.read_model`` does, in a child process with limits.

    Raises
    ------
    PeewitError
        As ``read_model``, or a limit was exceeded, or the child could not be started.
    """
    check_there(path)
    size = min(_size(path), MAX_COUNTED)
    seconds = SECONDS + size / BYTES_PER_SECOND
    memory = MEMORY + MEMORY_PER_BYTE * size
    # not `-m`, which would look for modules in the working directory first
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from peewit.importing.isolation import child; child(sys.argv[1], {seconds!r}, {memory!r})"
    )
    try:
        # if anything is raised here, KeyboardInterrupt too, `run` kills the child
        done = subprocess.run(  # noqa: S603  (this interpreter, without a shell)
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            # each thread of a library would reserve memory, which counts
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise damaged(f"reading it took longer than {seconds:.0f} seconds") from None
    except (OSError, ValueError) as error:  # ValueError: sys.executable is not known
        raise _not_started(path, str(error)) from error
    if not done.stdout.startswith(READY):
        raise _not_started(path, done.stderr.decode(errors="replace").strip().split("\n")[-1])
    if done.returncode:
        raise damaged("it makes the HDF5 library crash")
    return _parse(memoryview(done.stdout)[len(READY) :])


def child(path: str, seconds: float, memory: int) -> None:
    """Read the model at ``path`` within the limits, and write it to stdout; never returns."""
    # later than the parent's limit, which has a sentence
    limit_time(seconds + 5)
    limit_memory(memory)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    try:
        model = read_model(Path(path))
    except PeewitError as error:
        _finish({"error": [error.what, error.why, error.todo]})
    facts = {"architecture": asdict(model.architecture), "format": model.format}
    _finish(facts, model.arrays)


def _finish(facts: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n")
    for array in arrays:
        sys.stdout.buffer.write(np.ascontiguousarray(array, "<f4").data)
    sys.stdout.buffer.flush()
    # at once: the HDF5 library could crash on its way out
    os._exit(0)


def _parse(content: memoryview) -> KerasModel:
    """Return the model that ``_finish`` wrote, or raise its error."""
    line, _, _ = bytes(content[: 2**24]).partition(b"\n")
    facts = json.loads(line)
    if "error" in facts:
        raise PeewitError(*facts["error"])
    found = facts["architecture"]
    layers = tuple(
        Layer(
            layer["kind"],
            layer["name"],
            layer["settings"],
            {name: tuple(shape) for name, shape in layer["weights"].items()},
        )
        for layer in found["layers"]
    )
    architecture = Architecture(tuple(found["input_shape"]), layers, found["outputs"])
    shapes = [shape for layer in layers for shape in layer.weights.values()]
    values = np.frombuffer(content[len(line) + 1 :], "<f4").astype(np.float32)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(values, ends[:-1]) if shapes else []
    arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return KerasModel(architecture, arrays, facts["format"])


def _size(path: Path) -> int:
    """Return the size of a file, or of the files of a SavedModel that are read."""
    files = [*path.glob("*.pb"), *path.glob("variables/*")] if path.is_dir() else [path]
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in files)
    return 0  # it cannot be read, which the child will say


def _not_started(path: Path, why: str) -> PeewitError:
    return PeewitError(f"cannot import {path}", f"the process that reads it did not start: {why}")
