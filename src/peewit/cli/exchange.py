"""The commands that exchange models with other programs: ``peewit import`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peewit.cli.options import Choice, complete_source, data_option, examples, run_argument
from peewit.cli.output import download_shown, note
from peewit.cli.usage import Command

if TYPE_CHECKING:
    from peewit.runs.run import Run


@click.command(
    "import",
    cls=Command,
    short_help="Import a Keras model as a run.",
    epilog=examples(
        "peewit import model.h5 --classes cifar10",
        "peewit import model.keras --classes cat,dog --out runs/pets",
        "peewit import saved_model_folder --classes names.txt",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    required=True,
    metavar="NAMES|FILE|SOURCE",
    help="Classes in the order of the model's outputs: names separated by commas, a text file with "
    "one name per line, or the source that the model was trained on.",
    shell_complete=complete_source,
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="New folder for the run. [default: runs/NAME OF THE MODEL]",
)
def import_(model: Path, classes: str, data: str | None, out: Path | None) -> None:
    """Import MODEL as a run: a Keras file (.h5 or .keras), or a SavedModel folder of Keras 2.

    MODEL is only read: no code in it is executed. The run can be evaluated, explained, served,
    exported, and trained further.
    """
    from peewit.importing.keras import import_keras
    from peewit.importing.reading import check_there

    check_there(model)  # first, because the classes may need the download of a data set
    names, source = _classes(classes, data)
    run = import_keras(model, names, out=out, source=source)
    note(f"imported the weights of {model}; measure its accuracy with peewit evaluate")
    click.echo(run.path)


@click.command(
    cls=Command,
    short_help="Export a run's network to another format.",
    epilog=examples(
        "peewit export runs/NAME --to onnx",
        "peewit export runs/NAME --to keras --raw --out pets.keras",
        "peewit export runs/NAME --to openvino --int8",
    ),
)
@run_argument
@click.option(
    "--to",
    required=True,
    type=Choice(["onnx", "openvino", "keras", "torch"]),
    help="Format to export to.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Export the bare network, from preprocessed float32 images to logits. By default the "
    "preprocessing is included: from uint8 images of any size to probabilities.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Quantise to 8-bit integers (onnx and openvino only): about a third of the size.",
)
@click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="Archive or folder with the run's data, instead of searching for it (--int8 only).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write. [default: in the run's folder, model, model-raw, model-int8 or "
    "model-raw-int8, with the format's suffix]",
)
def export(
    folder: Path, to: str, raw: bool, int8: bool, data: str | None, out: Path | None
) -> None:
    """Export the network of RUN for other programs, and check that its predictions are the same.

    The file includes the class names and the origin of the network. It is checked with its own
    runtime on the run's test images if they are on this machine; a file that predicts a different
    class for any of them is deleted.

    With --int8 some predictions may change: the accuracy on the run's test images is printed before
    and after quantisation.
    """
    from peewit.export import job
    from peewit.runs.run import Run

    if data and not int8:
        raise click.UsageError("--data is only for --int8: leave it out, or add --int8")
    run = Run.open(folder)
    if int8:
        _export_int8(run, to, raw, data, out)
        return
    done = job.export(run, to, raw=raw, out=out)
    for sentence in done.notes:
        note(sentence)
    for file, agreement in done.files.items():
        if agreement is None:  # only Keras can be missing: the others write their own files
            install = "pip install 'peewit[tensorflow]'"
            note(f"{file} was not checked by Keras, which is not installed: {install}")
        else:
            note(f"{file} predicts {agreement}")
        click.echo(file)


def _export_int8(run: Run, to: str, raw: bool, data: str | None, out: Path | None) -> None:
    from peewit.export.int8 import export as export_int8

    done = export_int8(run, to, raw=raw, out=out, data=data)
    for sentence in done.notes:
        note(sentence)
    click.echo(done)
    click.echo(done.file)


def _classes(given: str, data: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return the class names, and the source if they are those of a source."""
    from peewit.data.cifar.layouts import CIFAR10_CLASSES
    from peewit.data.sources import SOURCES, load
    from peewit.errors import PeewitError
    from peewit.system.files import cannot_read

    if given in SOURCES:
        place: dict[str, Any] = {"source": given, "data": data, "coarse": False}
        if given == "cifar10" and not data:  # known without a download
            return list(CIFAR10_CLASSES), place
        with download_shown() as progress:
            splits = load(**place, progress=progress)
        for sentence in splits.notes:
            note(sentence)
        if data:
            place["data"] = str(Path(data).resolve())
        return list(splits.train.class_names), place
    if data:
        raise click.UsageError("--data applies only if --classes names a source, such as cifar10")
    if "," not in given and Path(given).is_file():
        try:
            # with or without the byte order mark that some editors write
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise cannot_read(Path(given), error) from error
        except UnicodeDecodeError as error:
            raise PeewitError(f"cannot read {given}", "it is not UTF-8 text") from error
        return [name for name in map(str.strip, lines) if name], {}
    names = [name for name in map(str.strip, given.split(",")) if name]
    if len(names) < 2:
        raise click.UsageError(
            f"--classes {given}: there is no such file or source; give names separated by commas, "
            f"a text file with one name per line, or one of {', '.join(SOURCES)}"
        )
    return names, {}
