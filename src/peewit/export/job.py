"""Export a run: write the files aside, compare them with the run, then move them into place."""

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
from peewit.export.agreement import Agreement, Predictor
from peewit.export.operations import Operation, operations_of
from peewit.images.preprocessing import Preprocessing
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import cannot_write, check_text

# name on the command line, which is also that of the module -> display name
FORMATS = {
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "keras": "Keras",
    "torch": "PyTorch (torch.export)",
}


@dataclass(frozen=True)
class Content:
    """What is written to a file.

    Parameters
    ----------
    operations : list
        The network.
    preprocessing : Preprocessing
    raw : bool
        If true, the bare network, from prepared float32 images to logits; otherwise with the
        preprocessing inside, from uint8 images of any size to probabilities.
    metadata : dict of str to str
        Class names and provenance.
    """

    operations: list[Operation]
    preprocessing: Preprocessing
    raw: bool
    metadata: dict[str, str]

    def predictor(
        self, forward: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]
    ) -> Predictor:
        """Return a function from uint8 images to probabilities.

        ``forward`` runs the file in its runtime. For raw files, the images are prepared first,
        (N, H, W, C) float32, and the logits are converted to probabilities.
        """
        if self.raw:
            return lambda images: softmax(forward(self.preprocessing.array(images)))
        return forward


class Format(Protocol):
    """The interface of a format's module."""

    SUFFIXES: tuple[str, ...]
    NOTE: str  # what users of the file should know; may be empty

    def write(self, content: Content, stem: Path) -> list[Path]:
        """Write the files ``stem`` + suffix; return those to check, the main one first."""

    def load(self, content: Content, file: Path) -> Predictor | None:
        """Load a file in its own runtime; return None if that is not installed."""


@dataclass(frozen=True)
class Exported:
    """The files, each with its agreement (None if unchecked), and notes for the user."""

    files: dict[Path, Agreement | None]
    notes: list[str] = field(default_factory=list)


def export(run: Run, to: str, *, raw: bool = False, out: str | Path | None = None) -> Exported:
    """Export the run's network to another format, and check the file in its own runtime.

    Parameters
    ----------
    run : Run
        A run with weights.
    to : str
        onnx, openvino, keras or torch.
    raw : bool
        Export the bare network (prepared float32 images -> logits); by default the preprocessing
        is inside (uint8 images of any size -> probabilities).
    out : path, optional
        The file; by default ``model`` with the format's suffix in the run folder.

    Raises
    ------
    PeewitError
        A package is missing, the format does not support one of the network's layers, the file
        cannot be written, or it does not agree with the run. No file is kept.
    UsageError
        There is no such format, ``out`` has another format's suffix, or the export would overwrite
        a file other than ``out``.
    """
    form = find_format(to)
    target = target_file(run, form, "model-raw" if raw else "model", out)
    content = contents(run, raw)
    sample = agreement.sample_pictures(run)
    ours = agreement.run_predictor(run)

    def check(file: Path) -> Agreement | None:
        theirs = form.load(content, file)
        if theirs is None:
            return None
        result = agreement.compare(ours, theirs, sample)
        agreement.require_agreement(result, str(target.with_suffix(file.suffix)))
        return result

    files = write_checked(target, lambda stem: form.write(content, stem), check)
    augmentation = single_view_note(run) if run.unsure_below else ""
    return Exported(files, [sentence for sentence in (augmentation, form.NOTE) if sentence])


def single_view_note(run: Run) -> str:
    """Return a note that the file lacks the run's test-time augmentation."""
    single, augmented = run.metrics.get("single_view_accuracy"), run.metrics.get("accuracy")
    known = isinstance(single, float) and isinstance(augmented, float)
    without, with_ = (f" (accuracy {single:.1%})", f" ({augmented:.1%})") if known else ("", "")
    return (
        f"the file evaluates each picture once{without}; the run uses test-time augmentation for "
        f"uncertain pictures{with_}"
    )


def find_format(to: str) -> Format:
    """Return the module of a format."""
    if to not in FORMATS:
        raise UsageError(f"cannot export to {to}", todo=f"choose one of {', '.join(FORMATS)}")
    module: Format = import_module(f"peewit.export.{to}")
    return module


def target_file(run: Run, form: Format, name: str, out: str | Path | None) -> Path:
    """Return the path of the main file; refuse to overwrite a file that ``out`` does not name."""
    target = Path(out) if out is not None else run.path / name
    check_text(target.absolute())  # PyTorch would abort the process on such a path
    if out is None:
        return target.with_name(name + form.SUFFIXES[0])
    if target.suffix not in form.SUFFIXES:
        raise UsageError(
            f"cannot export to {target}", todo=f"give a name that ends in {form.SUFFIXES[0]}"
        )
    # Every format writes one file per suffix. If the named file exists, the others are from an
    # earlier export; if only another one does, it is the user's own, such as an imported model.
    for other in map(target.with_suffix, form.SUFFIXES):
        if other.exists() and not target.exists():
            raise UsageError(
                f"cannot export to {target}",
                f"the export would also overwrite {other}",
                "give another name, or move that file",
            )
    return target


def contents(run: Run, raw: bool) -> Content:
    """Return the content of a file for ``run``."""
    return Content(operations_of(run.model()), run.preprocessing, raw, metadata(run))


def metadata(run: Run) -> dict[str, str]:
    """Return class names and provenance: model, data, date, result and version of Peewit."""
    keep = ("accuracy", "accuracy_interval", "images", "split")
    # pictures whose most probable class has a lower probability are of none of the classes
    rule = run.metrics.get("rejection")
    return ({"reject_below": str(rule["threshold"])} if rule else {}) | {
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
    """Return the SHA-256 checksum of the run's weights file."""
    try:
        return hashlib.sha256((run.path / runfolder.WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise PeewitError(f"cannot read the weights of {run.path}", str(error.strerror)) from error


def write_checked(
    target: Path, write: Callable[[Path], list[Path]], check: Callable[[Path], Agreement | None]
) -> dict[Path, Agreement | None]:
    """Write and check files in a temporary folder beside ``target``, then move them into place."""
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
