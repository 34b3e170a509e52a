"""An image encoder in an ONNX file: prepared pictures to features, by the fastest engine."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from peewit.errors import PeewitError
from peewit.models.encoders.contents import RGB, Contents, read_contents, unsuitable
from peewit.system.cpu import usable_cores
from peewit.system.openvino_runtime import compile_network
from peewit.system.packages import import_quietly

Floats = npt.NDArray[np.float32]
Compute = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
Pooling = Literal["none", "mean of positions", "mean of tokens", "class token"]

MOST_FEATURES = 65_536
# Features of a picture alone and in a batch differ by rounding, relative to the largest
TOLERANCE = 1e-3


class Encoder:
    """An image encoder from an ONNX file.

    Its features are the output (N, D); of (N, D, h, w) the mean of all positions; and of (N,
    tokens, D) the first token, which is the class token in vision transformers, unless the number
    of tokens is that of a square of patches: then there is no class token, and it is the mean.

    Parameters
    ----------
    path : Path
    output : str, optional
        The name of the output; by default the first that is suitable.
    size : int, optional
        Height and width of the input in pixels, for a file that leaves them open.
    sha256 : str, optional
        What the file must have.

    Attributes
    ----------
    contents : Contents
    engine : str
        Name and version of the engine.
    pooling : str
        How the output becomes features.
    width : int
        The number of features.

    Raises
    ------
    PeewitError
        It cannot be read, or is not an image encoder that Peewit can use.
    """

    def __init__(
        self,
        path: Path,
        output: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        self.path = path
        contents = read_contents(path, output, size, sha256)
        self.engine, why = engine_name(), ""
        self.pooling: Pooling = "none"
        # most files for one picture at a time can compute several too, and some that leave the
        # number open have nodes for only one
        for count in (None, contents.batch or 1):
            try:
                form = contents.with_batch(count)
                self.contents, self._compute = form, _load(form)
                self.width = self._try_out()
                return
            except PeewitError:
                raise
            except Exception as error:  # those of the engines have no common base class
                text = "" if isinstance(error, UnicodeError) else str(error)  # of a damaged name
                why = " ".join(text.split())[-200:] or type(error).__name__
        raise unsuitable(path, f"the engine {self.engine} cannot compute it: {why}")

    def features(self, x: Floats) -> Floats:
        """Return the features of prepared pictures, (n, H, W, 3) -> float32 (n, width)."""
        known = self.contents
        if known.dtype == np.uint8:
            x = np.rint(255 * x).clip(0, 255)
        x = x if known.channels_last else x.transpose(0, 3, 1, 2)
        pixels = np.ascontiguousarray(x, known.dtype)
        count, step = len(pixels), known.batch or max(len(pixels), 1)
        if not count:
            return np.empty((0, self.width), np.float32)
        parts = []
        for first in range(0, count, step):
            part = pixels[first : first + step]
            missing = step - len(part)
            filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part
            parts.append(self._pooled(self._compute(filled))[: len(part)])
        return np.concatenate(parts)

    def _pooled(self, output: npt.NDArray[Any]) -> Floats:
        match self.pooling:
            case "mean of positions":
                output = output.mean((2, 3), dtype=np.float32)
            case "mean of tokens":
                output = output.mean(1, dtype=np.float32)
            case "class token":
                output = output[:, 0]
        return output.astype(np.float32)

    def _try_out(self) -> int:
        """Compute two pictures, together and one of them alone; return the number of features."""
        contents = self.contents
        shape = (2, contents.size, contents.size, RGB)
        pictures = np.random.default_rng(0).random(shape, np.float32)
        raw = self._raw(pictures[:1])
        self.pooling = _pooling(self.path, raw.shape)
        alone, both = self.features(pictures[:1]), self.features(pictures)
        if both.shape != (2, alone.shape[1]):
            raise ValueError("it does not give the features of each picture")
        width = int(alone.shape[1])
        if not 2 <= width <= MOST_FEATURES:
            raise unsuitable(self.path, f"it has {width:,} features, not 2 to {MOST_FEATURES:,}")
        if not np.isfinite(both).all():
            raise unsuitable(self.path, "its features are not finite numbers")
        if np.abs(both[:1] - alone).max() > TOLERANCE * max(float(np.abs(alone).max()), 1e-6):
            raise ValueError("the features of a picture depend on the others in its batch")
        if np.array_equal(both[0], both[1]):
            raise unsuitable(self.path, "its features do not depend on the picture")
        return width

    def _raw(self, pictures: Floats) -> npt.NDArray[Any]:
        """Return the output for as many copies of a picture as the encoder needs."""
        known = self.contents
        x = np.repeat(pictures, known.batch or 1, 0)
        x = np.rint(255 * x) if known.dtype == np.uint8 else x
        x = x if known.channels_last else x.transpose(0, 3, 1, 2)
        return self._compute(np.ascontiguousarray(x, known.dtype))


def engine_name() -> str:
    """Return name and version of the engine, of which OpenVINO is the faster one.

    Raises
    ------
    PeewitError
        None is installed.
    """
    for package in ("openvino", "onnxruntime"):
        if find_spec(package):
            return f"{package}-{version(package)}"
    raise PeewitError(
        "a backbone needs the package openvino or onnxruntime",
        todo="install one with: pip install 'peewit[openvino]'",
    )


@lru_cache(maxsize=1)
def _opened(
    path: Path, stamp: tuple[int, int], output: str | None, size: int | None, sha256: str | None
) -> Encoder:
    return Encoder(path, output, size, sha256)


def open_encoder(
    path: Path, output: str | None = None, size: int | None = None, sha256: str | None = None
) -> Encoder:
    """Return the encoder in a file as ``Encoder`` does; the last one is kept for the next call."""
    try:
        facts = path.stat()
    except OSError as error:
        raise unsuitable(path, error.strerror or str(error)) from error
    return _opened(path, (facts.st_size, facts.st_mtime_ns), output, size, sha256)


def _pooling(path: Path, shape: tuple[int, ...]) -> Pooling:
    """Return how an output of this shape becomes features.

    >>> _pooling(Path("a.onnx"), (1, 257, 384)), _pooling(Path("a.onnx"), (1, 256, 384))
    ('class token', 'mean of tokens')
    """
    if len(shape) == 2:
        return "none"
    if len(shape) == 4:
        return "mean of positions"
    if len(shape) == 3:
        square = math.isqrt(shape[1]) ** 2 == shape[1]
        return "mean of tokens" if square and shape[1] > 1 else "class token"
    raise unsuitable(path, f"its output has the shape {list(shape)}")


def _load(contents: Contents) -> Compute:
    """Return a function that computes the output; several threads may call it."""
    content = contents.model.SerializeToString()
    if not find_spec("openvino"):
        return _onnxruntime(content, contents.input)
    network = compile_network(content, INFERENCE_NUM_THREADS=str(usable_cores()))
    own = threading.local()

    def compute(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not hasattr(own, "request"):
            own.request = network.create_infer_request()
        found: npt.NDArray[Any] = own.request.infer({0: x}, share_inputs=True)[0]
        return found.copy()  # OpenVINO reuses its output buffer

    return compute


def _onnxruntime(content: bytes, input_: str) -> Compute:
    onnxruntime = import_quietly("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def compute(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = session.run(None, {input_: x})[0]
        return found

    return compute
