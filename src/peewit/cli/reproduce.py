"""The command reproduce: train a run again from its own record, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peewit.cli.options import examples, run_argument
from peewit.cli.output import download_shown, note, print_json
from peewit.cli.runs import json_option
from peewit.cli.usage import Command

if TYPE_CHECKING:
    from peewit.runs.repetition import Repetition
    from peewit.runs.run import Run


@click.command(
    cls=Command,
    short_help="Train a run again from its own record, and compare.",
    epilog=examples("peewit reproduce runs/NAME"),
)
@run_argument
@click.option(
    "--data",
    type=click.Path(),
    metavar="PATH",
    help="Archive or folder with the run's data, if it has moved.",
)
@json_option
def reproduce(folder: Path, data: str | None, as_json: bool) -> None:
    """Train RUN again by its recipe, seed and data, and compare weights, history and metrics.

    They are the same, bit for bit, on the same machine with the same versions and threads;
    otherwise the result names what differs, and the exit code is 1. A run whose training steps
    followed the clock (--minutes, --until-accuracy) cannot be repeated exactly.
    """
    import tempfile

    from peewit.data.sources import load, moved
    from peewit.errors import PeewitError
    from peewit.runs.repetition import compare
    from peewit.runs.run import Run
    from peewit.trainer import train

    run = Run.open(folder)
    _check(run)
    with download_shown() as progress:
        splits = load(**moved(run.source, data), progress=progress)
    for sentence in splits.notes:
        note(sentence)
    with tempfile.TemporaryDirectory() as made:
        again = train(
            splits.train,
            run.recipe,
            test=splits.test,
            out=Path(made, "run"),
            source=moved(run.source, data),
            callbacks=[_same_data(run)],
            illustrated=False,
        )
        result = compare(run, again)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(_text(result))
    if not result.identical:
        changed = [
            f"{name} was {before}, and is {now}"
            for name, (before, now) in result.environment.items()
        ]
        raise PeewitError(
            f"the repetition differs from {folder}",
            ", ".join(changed) or "although machine, versions and number of threads are the same",
        )


def _check(run: Run) -> None:
    """Raise PeewitError if the run cannot be repeated."""
    from peewit.errors import PeewitError

    why = (
        f"it is {run.status}"
        if run.status != "finished"
        else "it does not record the source of its data"
        if not run.source
        else "the clock decided how many steps it was trained for"
        if not run.recipe.by_epochs and not run.recipe.head_only
        else ""
    )
    if why:
        raise PeewitError(f"cannot repeat {run.path}", why)


def _same_data(run: Run) -> Any:
    """Return a callback that stops a training on other data before its first step."""
    from peewit.errors import PeewitError
    from peewit.training.callbacks import Callback

    class SameData(Callback):
        def on_run_folder(self, path: Path) -> None:
            if type(run).open(path).dataset["fingerprints"] != run.dataset.get("fingerprints"):
                raise PeewitError(
                    f"cannot repeat {run.path}", "its data has changed", "name the data with --data"
                )

    return SameData()


def _text(result: Repetition) -> str:
    before, now = result.accuracy
    rows = {
        "weights": _weights(result.largest_difference),
        "history": f"different: {', '.join(result.history)}" if result.history else "identical",
        "metrics": f"different: {', '.join(result.metrics)}" if result.metrics else "identical",
        "accuracy": f"{before:.2%}, again {now:.2%}",
    }
    return "\n".join(f"{name:9} {text}" for name, text in rows.items())


def _weights(largest: float) -> str:
    if largest != largest:
        return "different networks"
    return f"different, by at most {largest:.1e}" if largest else "identical"
