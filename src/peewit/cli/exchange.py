"""The commands about other programs' files: import, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peewit.cli.options import complete_source, data_option, examples, run_argument
from peewit.cli.output import note

if TYPE_CHECKING:
    from peewit.runs.run import Run


@click.command(
    "import",
    short_help="Make a run of a Keras model.",
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
    help="The classes in the order of the model's outputs: names with commas between them, a text "
    "file with one a line, or the source that it was trained on.",
    shell_complete=complete_source,
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the run, which must not be there yet. [runs/NAME OF THE MODEL]",
)
def import_(model: Path, classes: str, data: str | None, out: Path | None) -> None:
    """Make a run of MODEL: a .h5 or .keras file of Keras, or a SavedModel folder of Keras 2.

    It is only read: no code in it is run. The run can be evaluated, explained, served,
    exported and trained on.
    """
    from peewit.importing.keras import check_there, import_keras

    check_there(model)  # before the classes, for which a data set may have to be downloaded
    names, source = _classes(classes, data)
    run = import_keras(model, names, out=out, source=source)
    note(f"its weights are those of {model}; peewit evaluate says how good they are")
    click.echo(run.path)


@click.command(
    short_help="Write a run's network for other programs.",
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
    type=click.Choice(["onnx", "openvino", "keras", "torch"]),
    help="The format.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="The bare network, from prepared float32 pictures to logits; without it the preprocessing "
    "is inside, from uint8 pictures of any size to probabilities.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="In whole numbers of 8 bits, for onnx and openvino: about a third of the size. Says what "
    "accuracy that costs, on the run's test pictures.",
)
@click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="For --int8: the archive or folder with the run's data, instead of looking for it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write. [in the run's folder, model, model-raw, model-int8 or model-raw-int8, "
    "with the format's ending]",
)
def export(
    folder: Path, to: str, raw: bool, int8: bool, data: str | None, out: Path | None
) -> None:
    """Write RUN's network as a file for other programs, and check that it answers as RUN does.

    The class names and where the network comes from are in the file. It is checked by its own
    runtime on the run's test pictures, where they are on this machine; a file that takes one for
    another class is not kept.

    With --int8 it takes some for other classes: the accuracy of both forms is printed.
    """
    from peewit.export import job
    from peewit.runs.run import Run

    if data and not int8:
        raise click.UsageError("--data goes with --int8")
    run = Run.open(folder)
    if int8:
        _export_int8(run, to, raw, data, out)
        return
    done = job.export(run, to, raw=raw, out=out)
    for sentence in done.notes:
        note(sentence)
    for file, agreement in done.files.items():
        if agreement is None:  # only Keras can be missing: the others write their files themselves
            note(f"{file} was not checked by Keras; pip install 'peewit[tensorflow]' to have it so")
        else:
            note(f"{file} gives {agreement}")
        click.echo(file)


def _export_int8(run: Run, to: str, raw: bool, data: str | None, out: Path | None) -> None:
    from peewit.export.int8 import export as export_int8

    done = export_int8(run, to, raw=raw, out=out, data=data)
    for sentence in done.notes:
        note(sentence)
    click.echo(done)
    click.echo(done.file)


def _classes(given: str, data: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the classes, and the source that they came from if they did."""
    from peewit.cli.download import download_shown
    from peewit.data.cifar.layouts import CIFAR10_CLASSES
    from peewit.data.sources import SOURCES, load
    from peewit.errors import PeewitError
    from peewit.system.files import cannot_read

    if given in SOURCES:
        place: dict[str, Any] = {"source": given, "data": data, "coarse": False}
        if given == "cifar10" and not data:  # the tutorial's: without the data, without a network
            return list(CIFAR10_CLASSES), place
        with download_shown() as progress:
            splits = load(**place, progress=progress)
        for sentence in splits.notes:
            note(sentence)
        if data:
            place["data"] = str(Path(data).resolve())
        return list(splits.train.class_names), place
    if data:
        raise click.UsageError("--data goes with a source, such as --classes cifar10")
    if "," not in given and Path(given).is_file():
        try:
            # with or without the mark that some editors begin a file with
            lines = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise cannot_read(Path(given), error) from error
        except UnicodeDecodeError as error:
            raise PeewitError(f"cannot read {given}", "it is not a text in UTF-8") from error
        return [name for name in map(str.strip, lines) if name], {}
    names = [name for name in map(str.strip, given.split(",")) if name]
    if len(names) < 2:
        raise click.UsageError(
            f"--classes {given}: it is no file that is there, and no source; give names with "
            f"commas between them, a text file with one a line, or one of {', '.join(SOURCES)}"
        )
    return names, {}
