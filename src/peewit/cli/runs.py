"""The commands about models and runs: summary, evaluate, report, runs and compare."""

from __future__ import annotations

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
from peewit.cli.output import (
    decoding_shown,
    download_shown,
    note,
    print_json,
    shortened,
    sized_splits,
)
from peewit.cli.usage import Command

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command(
    cls=Command,
    short_help="Print the layers of a model, and explain their parameters.",
    epilog=examples("peewit summary tutorial --explain"),
)
@click.argument("model", metavar="MODEL|RUN", shell_complete=complete_model)
@click.option("--explain", is_flag=True, help="Show how each layer's numbers are calculated.")
@json_option
def summary(model: str, explain: bool, as_json: bool) -> None:
    """Print the layers of a model, or of a run's model: shapes, parameters, FLOPs and memory."""
    from peewit.models.registry import MODELS, build, find, native_size
    from peewit.models.summary import summarise
    from peewit.runs.run import Run
    from peewit.training.network import build_network
    from peewit.training.optimizers import default_optimizer

    if model not in MODELS and Path(model).exists():
        run = Run.open(model)
        optimizer: str = run.recipe.optimizer
        rule = run.preprocessing
        shape = (rule.height, rule.width, rule.channels)
        # built, not loaded: a run without weights has layers too
        network = build_network(run.recipe, shape, len(run.class_names))
    else:
        size = native_size(model)
        shape = (size, size, 3)
        optimizer = default_optimizer(find(model).family)
        network = build(model, shape, 10, seed=0)
    result = summarise(network, shape, optimizer)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(result.explain() if explain else result.table())


@click.command(
    cls=Command,
    short_help="Evaluate a run on a test set.",
    epilog=examples("peewit evaluate runs/NAME", "peewit evaluate runs/NAME cifar10 --json"),
)
@run_argument
@click.argument("source", required=False, shell_complete=complete_source)
@data_options
@json_option
def evaluate(
    folder: Path, source: str | None, data: str | None, coarse: bool, as_json: bool
) -> None:
    """Evaluate RUN on the test set of SOURCE (default: the source that it was trained on).

    Prints the accuracy with its 95% interval, loss, top-3 accuracy, calibration error, and the
    precision, recall and F1 score of each class. For an imported run the first result is saved in
    the run's folder, with a report.
    """
    from peewit.data.division import with_near_duplicates
    from peewit.data.duplicates import copies_in
    from peewit.data.sources import load, moved
    from peewit.errors import PeewitError
    from peewit.evaluation.metrics import evaluate as evaluate_logits
    from peewit.prediction.engines import fastest
    from peewit.report.final_test import keep_test, without_copies
    from peewit.runs.folder import lasting_source, read_split
    from peewit.runs.run import Run
    from peewit.runs.tested import find_tested

    run = Run.open(folder)
    if source is not None:
        place: dict[str, Any] = {"source": source, "data": data, "coarse": coarse}
    elif coarse:
        raise click.UsageError("--coarse is only for a SOURCE: name one, or omit --coarse")
    elif run.source:
        place = moved(run.source, data)
    else:
        raise click.UsageError("the run does not record the source of its data: name a SOURCE")
    with download_shown() as progress:
        splits = load(**place, progress=progress)
    for sentence in splits.notes:
        note(sentence)
    splits = sized_splits(run, splits)
    train, dataset = splits.train, splits.test
    if train.names is not None:
        train, dataset = with_near_duplicates(train, dataset, note)
    logits, own = None, run.source and lasting_source(place)["source"] == run.source.get("source")
    if own and read_split(run.path):
        found = find_tested(run, train, dataset)
        for sentence in found.notes:
            note(sentence)
        train, dataset, logits = found.training, found.test, found.logits
        if dataset is None:
            dataset = found.judged
        if logits is not None:
            note(
                "the network was trained on all images of this source: these are the results of "
                "the cross-validation; name another SOURCE to test it on new images"
            )
    elif dataset is None:
        note(f"{splits.train.origin} has no test set: evaluating on all its images")
        dataset = train
    if tuple(dataset.class_names) != run.class_names:
        raise PeewitError(
            f"cannot evaluate {folder} on {dataset.origin}",
            f"the classes of the run are {shortened(run.class_names)}, "
            f"those of the data are {shortened(dataset.class_names)}",
        )
    if logits is None:
        logits = fastest(run).logits(dataset.images)
    result = evaluate_logits(logits, dataset.labels, run.class_names, dataset.groups)
    more: dict[str, Any] = {}
    if dataset is not train:
        copies = copies_in(dataset, train).tolist()
        more = without_copies(logits, dataset, "test", copies, note)
    untested = run.status == "imported" and not run.metrics
    if untested and splits.test is not None and (source is None or not run.source):
        try:
            keep_test(run, splits.train, splits.test, logits, place, note)
        except PeewitError as error:
            note(f"{error}; the result was not saved in the run")
        else:
            note(f"saved the result in {folder}, for peewit report, serve and compare")
    # last, because nothing is done after the reader of a pipe has exited
    if as_json:
        print_json(result.to_dict() | more)
    else:
        click.echo(result.table())


@click.command(
    cls=Command,
    short_help="Write an HTML report about a run.",
    epilog=examples("peewit report runs/NAME", "peewit report runs/NAME --out NAME.html"),
)
@run_argument
@click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="Archive or folder with the run's data, if it has moved.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="HTML",
    help="File to write. [default: report.html in RUN]",
)
def report(folder: Path, data: str | None, out: Path | None) -> None:
    """Write an HTML report about RUN: result, curves, mistakes, heat maps, cost, how to repeat it.

    The report is one file and needs no network. Its images come from the data that RUN was trained
    on; if that is unavailable, the report has only the pictures that were saved after training.
    """
    from peewit.errors import PeewitError
    from peewit.plots import advice
    from peewit.report import gather, write_report
    from peewit.runs.run import Run

    run = Run.open(folder)
    evidence, missing = None, ""
    if run.metrics:
        try:
            with download_shown() as progress, decoding_shown() as show:
                evidence, notes = gather(run, data, progress, show)
            if out is None and (missing_font := advice(run.class_names)):
                notes = (*notes, missing_font)
            for sentence in notes:
                note(sentence)
        except PeewitError as error:
            missing = str(error)
            note(f"{missing}; writing the report without the data")
    click.echo(write_report(run, evidence, missing=missing, out=out))


@click.command(
    cls=Command, short_help="List runs with their results.", epilog=examples("peewit runs")
)
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (default: runs) with their results."""
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
    cls=Command,
    short_help="Compare runs in a table and a plot.",
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
    help="File to write the plot or the page to. [default: compared.png or compared.html]",
)
@click.option("--html", is_flag=True, help="Write an HTML page instead of the plot.")
@json_option
def compare(folders: tuple[Path, ...], out: Path | None, html: bool, as_json: bool) -> None:
    """Compare runs: their results and the settings in which they differ; plot their curves."""
    from peewit.plots import advice, save_compared_curves
    from peewit.runs.comparison import comparison, differences, facts, readings
    from peewit.runs.run import Run, names_of
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
        if missing_font := advice(names_of(opened), "run"):
            note(missing_font)
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
    note(f"wrote the {'page' if html else 'plot of the curves'} to {out}")
