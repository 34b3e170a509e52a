"""Exporting: write the file aside, ask it and the Run about the same pictures, put it in place."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from peewit import __version__
from peewit.errors import PeewitError, UsageError
from peewit.evaluation.inference import softmax
from peewit.export import agreement
from peewit.export.agreement import Agreement, Answers
from peewit.export.chain import Operation, chain
from peewit.images.preprocessing import Preprocessing
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import cannot_write, check_text

# name on the command line -> module, and what it is called
FORMATS = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "keras": "Keras",
    "torch": "PyTorch (torch.export)",
}


@dataclass(frozen=True)
class Content:
    """What goes into a file.

    Parameters
    ----------
    operations : list
        The network.
    preprocessing : Preprocessing
    raw : bool
        The bare network, from prepared float32 pictures to logits; else everything, from uint8
        pictures of any size to probabilities.
    metadata : dict of str to str
        Class names and provenance.
    """

    operations: list[Operation]
    preprocessing: Preprocessing
    raw: bool
    metadata: dict[str, str]

    def answers(self, forward: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]) -> Answers:
        """Return probabilities of pictures by ``forward``, which is the file in its runtime.

        Raw files are given what they expect, (N, H, W, C) float32, and their logits made
        probabilities.
        """
        if self.raw:
            return lambda pictures: softmax(forward(self.preprocessing.array(pictures)))
        return forward


class Format(Protocol):
    """A module of one format."""

    SUFFIXES: tuple[str, ...]
    NOTE: str  # what whoever uses the file should know; empty for nothing

    def write(self, content: Content, stem: Path) -> list[Path]:
        """Write the files ``stem`` + suffix; return those to be checked, the main one first."""

    def answers(self, content: Content, file: Path) -> Answers | None:
        """Load a file in its own runtime; None where that is not installed."""


@dataclass(frozen=True)
class Exported:
    """What came of it: the files with how each agrees, and sentences for the user."""

    files: dict[Path, Agreement | None]
    notes: list[str] = field(default_factory=list)


def export(run: Run, to: str, *, raw: bool = False, out: str | Path | None = None) -> Exported:
    """Write the run's network for another program, and check it there.

    Parameters
    ----------
    run : Run
        With weights.
    to : str
        onnx, openvino, keras or torch.
    raw : bool
        The bare network (float32 prepared pictures -> logits); by default the preprocessing is
        inside (uint8 pictures of any size -> probabilities).
    out : path, optional
        The file; ``model`` with the format's suffix in the run folder by default.

    Raises
    ------
    PeewitError
        A package is missing, the network has a layer that the format has no form for, the file
        cannot be written, or it does not agree with the run: then nothing is kept.
    UsageError
        There is no such format, ``out`` has another format's suffix, or it is new and a file that
        would be written beside it is there.
    """
    form = find(to)
    target = target_file(run, form, "model-raw" if raw else "model", out)
    content = contents(run, raw)
    pictures = agreement.sample(run)
    ours = agreement.answers_of(run)

    def check(file: Path) -> Agreement | None:
        theirs = form.answers(content, file)
        if theirs is None:
            return None
        result = agreement.compare(ours, theirs, pictures)
        agreement.require(result, str(target.with_suffix(file.suffix)))
        return result

    files = placed(target, lambda stem: form.write(content, stem), check)
    looks = one_view(run) if run.unsure_below else ""
    return Exported(files, [sentence for sentence in (looks, form.NOTE) if sentence])


def one_view(run: Run) -> str:
    """Say what a file has not that the run has: second looks at pictures it is unsure of."""
    single, whole = run.metrics.get("single_view_accuracy"), run.metrics.get("accuracy")
    known = isinstance(single, float) and isinstance(whole, float)
    once, twice = (f" (accuracy {single:.1%})", f" ({whole:.1%})") if known else ("", "")
    return (
        f"the file looks at each picture once{once}; the run looks again at those it is "
        f"unsure of{twice}"
    )


def find(to: str) -> Format:
    """Return the module of a format."""
    if to not in FORMATS:
        raise UsageError(f"there is no export to {to}", todo=f"choose one of {', '.join(FORMATS)}")
    module: Format = import_module(f"peewit.export.{to}")
    return module


def target_file(run: Run, form: Format, name: str, out: str | Path | None) -> Path:
    """Return where the main file goes; refuse to replace another that ``out`` does not name."""
    target = Path(out) if out is not None else run.path / name
    check_text(target.absolute())  # PyTorch would end the process, without a word to the user
    if out is None:
        return target.with_name(name + form.SUFFIXES[0])
    if target.suffix not in form.SUFFIXES:
        raise UsageError(
            f"cannot export to {target}", todo=f"give a name that ends in {form.SUFFIXES[0]}"
        )
    # every format writes a file of each of its suffixes. Where the named one is there too, they
    # are an earlier export's; alone, the other is somebody's own, such as the model of an import
    for other in map(target.with_suffix, form.SUFFIXES):
        if other.exists() and not target.exists():
            raise UsageError(
                f"cannot export to {target}",
                f"the export also writes {other}, which is there already",
                "give another name, or move that file",
            )
    return target


def contents(run: Run, raw: bool) -> Content:
    """Return what goes into a file of ``run``."""
    return Content(chain(run.model()), run.preprocessing, raw, metadata(run))


def metadata(run: Run) -> dict[str, str]:
    """Return class names and provenance: what, from which data, how good, by which program."""
    keep = ("accuracy", "accuracy_interval", "images", "split")
    return {
        "class_names": json.dumps(run.class_names, ensure_ascii=False),
        "preprocessing": json.dumps(run.preprocessing.to_dict()),
        "model": run.recipe.model,
        "recipe": run.recipe.name,
        "trained_on": str(run.dataset.get("origin", "")),
        "trained_at": str(run.environment.get("date", "")),
        "result": json.dumps({name: run.metrics[name] for name in keep if name in run.metrics}),
        "weights_sha256": weights_checksum(run),
        "written_by": f"peewit {__version__}",
    }


def weights_checksum(run: Run) -> str:
    """Return the SHA-256 of the file of the run's weights."""
    try:
        return hashlib.sha256((run.path / runfolder.WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise PeewitError(f"the run {run.path} has no weights", str(error.strerror)) from error


def placed(
    target: Path, write: Callable[[Path], list[Path]], check: Callable[[Path], Agreement | None]
) -> dict[Path, Agreement | None]:
    """Write and check in a folder beside ``target``; move the files there if all went well."""
    try:
        folder = Path(
            tempfile.mkdtemp(prefix=f".{target.stem}.", suffix=".part", dir=target.parent)
        )
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        written = write(folder / target.stem)
        results = {target.with_name(file.name): check(file) for file in written}
        for file in sorted(folder.iterdir()):
            file.replace(target.with_name(file.name))
        return results
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
