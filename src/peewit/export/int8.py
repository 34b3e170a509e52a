"""Export 8-bit networks: quantised by the vendors' tools, compared with the float network."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.data.packing import sized_for
from peewit.data.sources import Splits
from peewit.errors import PeewitError, UsageError
from peewit.export import agreement, job
from peewit.export.agreement import Images, Predictor
from peewit.runs.run import Run

# format -> the module with the vendor's tool
TOOLS = {"onnx": "peewit.export.int8_onnx", "openvino": "peewit.export.int8_openvino"}

# Training images from which the ranges of the activations are determined. With 128 to 2,048 of
# them, accuracies on 10,000 test images were within 0.7 points, and the most were not the best.
CALIBRATION = 512
# maximum number of test images, which takes a few seconds for small networks
EVALUATED = 10_000
BATCH = 64
# smaller losses of accuracy and smaller speed-ups are noise and are not reported as such
LOSS, GAIN = 0.01, 1.1


class Tool(Protocol):
    """The interface of a vendor tool's module."""

    def quantize(self, content: job.Content, batches: Sequence[Images]) -> Any:
        """Return the 8-bit model, calibrated on ``batches``."""

    def save(self, model: Any, content: job.Content, stem: Path) -> list[Path]:
        """Write the model that ``quantize`` returned; return its files, the main one first."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, speed and size of an exported file.

    Attributes
    ----------
    accuracy : float
        From 0 to 1, without test-time augmentation.
    seconds : float
        Time for all pictures.
    bytes : int
        Total size of its files.
    """

    accuracy: float
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Quantized:
    """An 8-bit file and how it compares with the float one.

    Attributes
    ----------
    file : Path
        The main file.
    before, after : Evaluation
        In float and in 8 bits, in the same runtime on the same pictures.
    pictures : str
        Description of these pictures.
    notes : tuple of str
        Notes for the user.
    """

    file: Path
    before: Evaluation
    after: Evaluation
    pictures: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        before, after = self.before, self.after
        return (
            f"accuracy {before.accuracy:.2%} before and {after.accuracy:.2%} after, on "
            f"{self.pictures}; {before.bytes / 1e6:.2f} MB before, {after.bytes / 1e6:.2f} MB after"
        )

    def gains(self) -> list[str]:
        """Return sentences about the speed-up, and about a loss of accuracy if there is one."""
        before, after = self.before, self.after
        speedup = before.seconds / after.seconds
        smaller = after.bytes < before.bytes
        if speedup >= GAIN:
            speed = f"int8 is {speedup:.1f} times as fast as float on this machine"
        else:
            rest = "only smaller" if smaller else "and no smaller: there is no benefit"
            speed = f"int8 is no faster than float on this machine ({speedup:.1f} times), {rest}"
        sentences = [speed]
        loss = before.accuracy - after.accuracy
        if loss > LOSS:
            sentences.append(
                f"int8 costs {100 * loss:.1f} percentage points of accuracy; export without --int8 "
                "to avoid this"
            )
        return sentences


def export(
    run: Run,
    to: str,
    *,
    raw: bool = False,
    out: str | Path | None = None,
    data: str | Path | None = None,
) -> Quantized:
    """Export the run's network in 8 bits, and compare it with the float network.

    Parameters
    ----------
    run : Run
        A run with weights.
    to : str
        onnx (quantised by ONNX Runtime) or openvino (by NNCF).
    raw, out
        As in ``job.export``; the default file is ``model-int8``.
    data : path, optional
        Location of the run's data, if not the one stored in the run. The training images
        calibrate the network, the test images evaluate it. Nothing is downloaded.

    Raises
    ------
    PeewitError
        The data or a package is missing, the data has other classes, the format does not support
        one of the network's layers, or the file cannot be written. No file is kept.
    UsageError
        The format has no 8-bit form, or ``out`` is refused as in ``job.export``.
    """
    if to not in TOOLS:
        raise UsageError(
            f"cannot export to {to} in 8 bits", todo="use --int8 with onnx or openvino"
        )
    form = job.find_format(to)
    tool: Tool = import_module(TOOLS[to])
    target = job.target_file(run, form, "model-raw-int8" if raw else "model-int8", out)
    splits = _run_data(run, data)
    notes = list(splits.notes)
    training = splits.train.take(_sample(len(splits.train), CALIBRATION))
    training = sized_for(training, run.preprocessing, notes.append)
    kind, test = ("test", splits.test) if splits.test is not None else ("training", splits.train)
    test = sized_for(test, run.preprocessing, notes.append)
    evaluated = test.take(_sample(len(test), EVALUATED))
    scope = "" if len(evaluated) == len(test) else "a sample of "
    pictures = f"{scope}{len(evaluated):,} {kind} images"
    content = job.contents(run, raw)
    results: list[Evaluation] = []

    def write(stem: Path) -> list[Path]:
        model = tool.quantize(content, _batches(training.images))
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            before = form.write(content, folder / "before")
            after = tool.save(model, content, folder / "after")
            results[:] = _evaluate(form, content, [before[0], after[0]], evaluated)
        facts = {
            "accuracy_before": results[0].accuracy,
            "accuracy_after": results[1].accuracy,
            "measured_on": pictures,
            "data": evaluated.origin,
            "calibration_images": len(training),
        }
        metadata = content.metadata | {"int8": json.dumps(facts, ensure_ascii=False)}
        return tool.save(model, replace(content, metadata=metadata), stem)

    files = job.write_checked(target, write, lambda file: None)
    done = Quantized(next(iter(files)), results[0], results[1], pictures)
    augmentation = [job.single_view_note(run)] if run.unsure_below else []
    return replace(done, notes=(*notes, *done.gains(), *augmentation))


def _run_data(run: Run, data: str | Path | None) -> Splits:
    try:
        return agreement.run_data(run, data)
    except PeewitError as error:
        raise PeewitError(
            f"exporting {run.path} with --int8 needs its training images",
            ": ".join(part for part in (error.what, error.why) if part),
            error.todo,
        ) from error


def _sample(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return up to ``most`` of ``count`` indices, at random with a fixed seed, in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _batches(images: Images) -> list[Images]:
    """Split images (N, H, W, C) into batches."""
    return [images[first : first + BATCH] for first in range(0, len(images), BATCH)]


def _evaluate(
    form: job.Format, content: job.Content, files: Sequence[Path], test: Dataset
) -> list[Evaluation]:
    """Evaluate files in their runtime, interleaved, so that background load slows all of them."""
    predictors: list[Predictor] = []
    for file in files:
        predictor = form.load(content, file)
        assert predictor is not None
        predictors.append(predictor)
    correct, seconds = [0] * len(files), [0.0] * len(files)
    first = 0
    for images in _batches(test.images):
        labels = test.labels[first : first + len(images)]
        first += len(images)
        for number, predictor in enumerate(predictors):
            start = time.perf_counter()
            probabilities = predictor(np.ascontiguousarray(images))
            seconds[number] += time.perf_counter() - start
            correct[number] += int((probabilities.argmax(1) == labels).sum())
    sizes = [
        sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*")) for file in files
    ]
    return [
        Evaluation(count / len(test), spent, size)
        for count, spent, size in zip(correct, seconds, sizes, strict=True)
    ]
