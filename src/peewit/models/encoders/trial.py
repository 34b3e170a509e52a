"""The first use of an encoder's file: in a child process with limits of time and memory.

A file can make an engine crash, loop or allocate gigabytes, and nothing can interrupt it within its
process. So a child loads the file and computes two pictures; only a file that passes is used here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from peewit.errors import PeewitError
from peewit.models.encoders.contents import EXTRA, MOST_BYTES, unsuitable
from peewit.models.encoders.encoder import Encoder, engine_name
from peewit.system.child_limits import limit_memory, limit_time
from peewit.system.packages import import_required

# EfficientNet-Lite2 takes 1.5 s from the start of the child; a busy machine may be many times
# as slow
SECONDS, BYTES_PER_SECOND = 60.0, 4 * 2**20
# OpenVINO reserves 2 GB of addresses for nothing; compiling holds the weights several times
MEMORY, MEMORY_PER_BYTE = 8 * 2**30, 12


@dataclass(frozen=True)
class Trial:
    """What the trial of a file has found; see ``Encoder`` and ``Contents``."""

    sha256: str
    size: int
    output: str
    pooling: str
    features: int
    engine: str
    takes_bytes: bool
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None


def try_encoder(path: Path, output: str | None = None, size: int | None = None) -> Trial:
    """Load an encoder and compute two pictures with it, in a child process with limits.

    Raises
    ------
    PeewitError
        As ``Encoder``, or a limit was exceeded, or the child could not be started.
    """
    import_required("onnx", EXTRA, "a backbone")
    engine_name()  # raises if there is none
    try:
        if not path.is_file():
            raise unsuitable(path, "it is not a file" if path.exists() else "there is no such file")
        count = min(path.stat().st_size, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise unsuitable(path, str(error)) from error
    seconds, memory = SECONDS + count / BYTES_PER_SECOND, MEMORY + MEMORY_PER_BYTE * count
    arguments = f"sys.argv[1], {output!r}, {size!r}, {seconds!r}, {memory!r}"
    # not `-m`, which would look for modules in the working directory first
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from peewit.models.encoders.trial import child; child({arguments})"
    )
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, without a shell)
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise unsuitable(path, f"trying it out took longer than {seconds:.0f} seconds") from None
    except (OSError, ValueError) as error:
        raise unsuitable(path, f"the process that tries it out did not start: {error}") from error
    line = done.stdout.rpartition(b"\n")[2]
    if done.returncode or not line:
        raise unsuitable(path, "it makes the engine crash, or needs too much memory")
    facts = json.loads(line)
    if "error" in facts:
        raise PeewitError(*facts["error"])
    if facts["normalisation"] is not None:
        facts["normalisation"] = tuple(map(tuple, facts["normalisation"]))
    return Trial(**facts)


def child(path: str, output: str | None, size: int | None, seconds: float, memory: int) -> None:
    """Try the file at ``path`` out within the limits, and write the result to stdout."""
    limit_time(seconds + 5)  # later than the parent's limit, which has a sentence
    limit_memory(memory)
    try:
        encoder = Encoder(Path(path), output, size)
    except PeewitError as error:
        _finish({"error": [error.what, error.why, error.todo]})
    contents = encoder.contents
    _finish(
        {
            "sha256": contents.sha256,
            "size": contents.size,
            "output": contents.output,
            "pooling": encoder.pooling,
            "features": encoder.width,
            "engine": encoder.engine,
            "takes_bytes": contents.dtype.__name__ == "uint8",
            "normalisation": contents.normalisation,
        }
    )


def _finish(facts: dict[str, object]) -> None:
    sys.stdout.buffer.write(b"\n" + json.dumps(facts).encode())
    sys.stdout.buffer.flush()
    os._exit(0)  # at once: an engine could crash on its way out
