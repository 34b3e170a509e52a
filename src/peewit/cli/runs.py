"""The commands about models and runs: summary, evaluate, predict, runs, compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from peewit.cli.options import (
    complete_model,
    complete_run,
    complete_source,
    data_options,
    examples,
    run_argument,
)
from peewit.cli.output import complain, note, print_json, shortened

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command(
    short_help="Show a model's layers, and explain their parameters.",
    epilog=examples("peewit summary tutorial --explain"),
)
@click.argument("model", metavar="MODEL|RUN", shell_complete=complete_model)
@click.option("--explain", is_flag=True, help="Say where each layer's numbers come from.")
@json_option
def summary(model: str, explain: bool, as_json: bool) -> None:
    """Print the layers of a model or of a run's model: shapes, parameters, work and memory."""
    from peewit.models.registry import MODELS, build, find, native_size
    from peewit.models.summary import summarise
    from peewit.runs.run import Run

    if model not in MODELS and Path(model).exists():
        run = Run.open(model)
        model, classes, optimizer = run.recipe.model, len(run.class_names), run.recipe.optimizer
        rule = run.preprocessing
        shape = (rule.height, rule.width, rule.channels)
    else:
        size, classes = native_size(model), 10
        shape = (size, size, 3)
        optimizer = "muon" if find(model).family == "fast" else "adam"
    # the layers of a run that has no weights yet are known too
    network = build(model, shape, classes, seed=0)
    result = summarise(network, shape, optimizer)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.explain() if explain else result.table())


@click.command(
    short_help="Judge a run on a test set.",
    epilog=examples("peewit evaluate runs/NAME", "peewit evaluate runs/NAME cifar10 --json"),
)
@run_argument
@click.argument("source", required=False, shell_complete=complete_source)
@data_options
@json_option
def evaluate(
    folder: Path, source: str | None, data: str | None, coarse: bool, as_json: bool
) -> None:
    """Judge RUN on the test set of SOURCE: by default of the source that it was trained on.

    Prints accuracy with its 95 % interval, loss, top-3, calibration error, and precision, recall
    and F1 of each class. The first such test of an imported run is kept in it, with a report.
    """
    from peewit.cli.download import download_shown
    from peewit.data.sources import load, moved
    from peewit.errors import PeewitError
    from peewit.evaluation.metrics import evaluate as judge
    from peewit.prediction.engines import fastest
    from peewit.runs.run import Run

    run = Run.open(folder)
    if source is not None:
        place: dict[str, Any] = {"source": source, "data": data, "coarse": coarse}
    elif coarse:
        raise click.UsageError("--coarse says how to load a SOURCE: name one, or leave it out")
    elif run.source:
        place = moved(run.source, data)
    else:
        raise click.UsageError("the run does not know where its data came from: name a SOURCE")
    with download_shown() as progress:
        splits = load(**place, progress=progress)
    for sentence in splits.notes:
        note(sentence)
    dataset = splits.test
    if dataset is None:
        note(f"{splits.train.origin} has no test set: all its images are judged")
        dataset = splits.train
    if tuple(dataset.class_names) != run.class_names:
        raise PeewitError(
            f"cannot evaluate {folder} on {dataset.origin}",
            f"the run knows the classes {shortened(run.class_names)}, "
            f"the data has {shortened(dataset.class_names)}",
        )
    logits = fastest(run).logits(dataset.images)
    result = judge(logits, dataset.labels, run.class_names)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.table())
    untested = run.status == "imported" and not run.metrics
    if untested and splits.test is not None and (source is None or not run.source):
        from peewit.report.final_test import keep_test

        try:
            keep_test(run, splits.train, splits.test, logits, place, note)
        except PeewitError as error:
            note(f"{error}; so the run does not know of this test")
        else:
            note(f"{folder} keeps this: peewit report, serve and compare know it now")


@click.command(
    short_help="Say what pictures show.",
    epilog=examples(
        "peewit predict runs/NAME photo.jpg holiday/ --top 3",
        "cat photo.jpg | peewit predict runs/NAME -",
    ),
)
@run_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--top", type=int, default=1, show_default=True, metavar="K", help="How many classes to name."
)
@json_option
@click.pass_context
def predict(
    context: click.Context, folder: Path, images: tuple[str, ...], top: int, as_json: bool
) -> None:
    """Say what each IMAGE shows: a file of any size and kind, a folder, or - for standard input."""
    from peewit.errors import PeewitError
    from peewit.prediction.engines import fastest
    from peewit.prediction.predict import find_pictures
    from peewit.prediction.predict import predict as look
    from peewit.runs.run import Run

    run = Run.open(folder)
    answers: list[dict[str, Any]] = []
    failures = 0
    pictures = find_pictures(images, sys.stdin.buffer)
    # for a few the shortest wait, for many the most a second
    engine = fastest(run, 1 if len(pictures) < 32 else 64)
    for answer in look(engine, pictures, top):
        if isinstance(answer, PeewitError):
            failures += 1
            complain(answer)
        elif as_json:
            answers.append(answer.to_dict())
        else:
            click.echo(answer)
    if as_json:
        print_json(answers)
    if failures:
        context.exit(1)


@click.command(short_help="List runs and what each came to.", epilog=examples("peewit runs"))
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (by default runs) with what each came to."""
    from peewit.runs.comparison import facts, table
    from peewit.runs.run import Run
    from peewit.system.terminal import console_out

    found, broken = Run.find_all(folder)
    for problem in broken:
        note(str(problem))
    if as_json:
        print_json([facts(run) for run in found])
    elif found:
        click.echo(table(found, console_out().width))
    else:
        note(f"there are no runs in {folder}")


@click.command(
    short_help="Compare runs in a table and a picture.",
    epilog=examples(
        "peewit compare runs/A runs/B --out compared.png", "peewit compare runs/* --html"
    ),
)
@click.argument(
    "folders",
    nargs=-1,
    metavar="RUN RUN...",
    type=click.Path(path_type=Path),
    shell_complete=complete_run,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to draw their curves, or to write the page. [compared.png or compared.html]",
)
@click.option("--html", is_flag=True, help="Write a page with all of it instead of a picture.")
@json_option
def compare(folders: tuple[Path, ...], out: Path | None, html: bool, as_json: bool) -> None:
    """Compare runs: what each came to, in what they differ, and their curves in one picture."""
    from peewit.plots import save_compared_curves
    from peewit.runs.comparison import comparison, differences, facts, readings
    from peewit.runs.run import Run
    from peewit.system.terminal import console_out

    if len(folders) < 2:
        raise click.UsageError("name two runs or more")
    opened = [Run.open(folder) for folder in folders]
    if html:
        from peewit.report import write_comparison

        out = write_comparison(opened, out or Path("compared.html"))
    else:
        out = out or Path("compared.png")
        save_compared_curves(out, opened)
    if as_json:
        print_json(
            {
                "runs": [facts(run) for run in opened],
                "differences": differences(opened),
                "readings": readings(opened),
            }
        )
    else:
        click.echo(comparison(opened, console_out().width))
    note(f"{'the page is' if html else 'their curves are in'} {out}")
