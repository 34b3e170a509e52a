"""Networks in whole numbers of 8 bits: made by the vendors' own tools, judged beside the float."""

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
from peewit.data.sources import Splits
from peewit.errors import PeewitError, UsageError
from peewit.export import agreement, job
from peewit.export.agreement import Answers, Pictures
from peewit.runs.run import Run

# format -> the module of its vendor's tool
TOOLS = {"onnx": "peewit.export.int8_onnx", "openvino": "peewit.export.int8_openvino"}

# Training pictures by which the ranges of the activations are found. With 128 to 2,048 of them the
# accuracies, on 10,000 test images, were within 0.7 points of each other, and the most not the best
CALIBRATION = 512
# the most test pictures that the files are judged on: a few seconds for small networks
JUDGED = 10_000
BATCH = 64
# what is said to be a loss of accuracy, and a gain in speed: less than either is noise
LOSS, GAIN = 0.01, 1.1


class Tool(Protocol):
    """A module of one vendor's tool."""

    def quantised(self, content: job.Content, batches: Sequence[Pictures]) -> Any:
        """Return the network in 8 bits, with the ranges that its values have for ``batches``."""

    def save(self, model: Any, content: job.Content, stem: Path) -> list[Path]:
        """Write what ``quantised`` gave; return the files to be checked, the main one first."""


@dataclass(frozen=True)
class Judged:
    """A file: how good it is, how fast here, and how large.

    Attributes
    ----------
    accuracy : float
        Of one view of each picture, from 0 to 1.
    seconds : float
        For all pictures.
    bytes : int
        Of all its files together.
    """

    accuracy: float
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Quantised:
    """What came of it.

    Attributes
    ----------
    file : Path
        The main file.
    before, after : Judged
        In float and in 8 bits, in the same runtime on the same pictures.
    pictures : str
        Which those were.
    notes : tuple of str
        Sentences for the user.
    """

    file: Path
    before: Judged
    after: Judged
    pictures: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        first, second = self.before, self.after
        return (
            f"accuracy {first.accuracy:.2%} before and {second.accuracy:.2%} after, on "
            f"{self.pictures}; {first.bytes / 1e6:.2f} MB before, {second.bytes / 1e6:.2f} MB after"
        )

    def gains(self) -> list[str]:
        """Say what it gained and lost beside the accuracy and the size of the sentence."""
        before, after = self.before, self.after
        times = before.seconds / after.seconds
        smaller = after.bytes < before.bytes
        faster = (
            f"it answers {times:.1f} times as many pictures a second as before, on this machine"
        )
        if times < GAIN:
            rest = "its gain is its size" if smaller else "and no smaller: there is no gain in it"
            faster = f"it is no faster than before on this machine ({times:.1f} times), {rest}"
        said = [faster]
        lost = before.accuracy - after.accuracy
        if lost > LOSS:
            said.append(
                f"that is {100 * lost:.1f} points of accuracy less; without --int8 there is no loss"
            )
        return said


def export(
    run: Run,
    to: str,
    *,
    raw: bool = False,
    out: str | Path | None = None,
    data: str | Path | None = None,
) -> Quantised:
    """Write the run's network in 8 bits, and judge it beside the one in float.

    Parameters
    ----------
    run : Run
        With weights.
    to : str
        onnx (by ONNX Runtime) or openvino (by NNCF).
    raw, out
        As of ``job.export``; the file is ``model-int8`` by default.
    data : path, optional
        Where the run's data lies, if not where the run says: its training pictures set the ranges
        of the values inside the network, its test pictures judge. Nothing is downloaded.

    Raises
    ------
    PeewitError
        The data or a package is missing, the data has other classes, the network has a layer that
        the format has no form for, or the file cannot be written: then nothing is kept.
    UsageError
        The format has no such form, or ``out`` is refused as by ``job.export``.
    """
    if to not in TOOLS:
        raise UsageError(f"there is no int8 form of {to}", todo="export to onnx or openvino")
    form = job.find(to)
    tool: Tool = import_module(TOOLS[to])
    target = job.target_file(run, form, "model-raw-int8" if raw else "model-int8", out)
    splits = _data(run, data)
    training = splits.train.take(_sample(len(splits.train), CALIBRATION))
    kind, test = ("test", splits.test) if splits.test is not None else ("training", splits.train)
    chosen = test.take(_sample(len(test), JUDGED))
    pictures = f"{'' if len(chosen) == len(test) else 'a sample of '}{len(chosen):,} {kind} images"
    content = job.contents(run, raw)
    judged: list[Judged] = []

    def write(stem: Path) -> list[Path]:
        model = tool.quantised(content, _batches(training.images))
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            before = form.write(content, folder / "before")
            after = tool.save(model, content, folder / "after")
            judged[:] = _judge(form, content, [before[0], after[0]], chosen)
        facts = {
            "accuracy_before": judged[0].accuracy,
            "accuracy_after": judged[1].accuracy,
            "measured_on": pictures,
            "data": chosen.origin,
            "calibration_images": len(training),
        }
        metadata = content.metadata | {"int8": json.dumps(facts, ensure_ascii=False)}
        return tool.save(model, replace(content, metadata=metadata), stem)

    files = job.placed(target, write, lambda file: None)
    done = Quantised(next(iter(files)), judged[0], judged[1], pictures)
    looks = [job.one_view(run)] if run.unsure_below else []
    return replace(done, notes=(*splits.notes, *done.gains(), *looks))


def _data(run: Run, data: str | Path | None) -> Splits:
    try:
        return agreement.own_data(run, data)
    except PeewitError as error:
        raise PeewitError(
            f"an 8-bit file of {run.path} needs its training pictures",
            ": ".join(part for part in (error.what, error.why) if part),
            error.todo,
        ) from error


def _sample(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return which of ``count`` pictures are taken, in order; always the same, of any order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _batches(pictures: Pictures) -> list[Pictures]:
    """Part pictures (N, H, W, C)."""
    return [pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH)]


def _judge(
    form: job.Format, content: job.Content, files: Sequence[Path], test: Dataset
) -> list[Judged]:
    """Judge files in their runtime, in turns: what else the machine does slows all of them."""
    asked: list[Answers] = []
    for file in files:
        answers = form.answers(content, file)
        assert answers is not None
        asked.append(answers)
    hits, seconds = [0] * len(files), [0.0] * len(files)
    first = 0
    for pictures in _batches(test.images):
        right = test.labels[first : first + len(pictures)]
        first += len(pictures)
        for number, answers in enumerate(asked):
            began = time.perf_counter()
            answered = answers(np.ascontiguousarray(pictures))
            seconds[number] += time.perf_counter() - began
            hits[number] += int((answered.argmax(1) == right).sum())
    sizes = [
        sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*")) for file in files
    ]
    return [
        Judged(hit / len(test), spent, size)
        for hit, spent, size in zip(hits, seconds, sizes, strict=True)
    ]
