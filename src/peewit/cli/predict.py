"""The command that classifies picture files."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peewit.cli.options import Integer, examples, run_argument
from peewit.cli.output import complain, note, print_json, progress_shown
from peewit.cli.runs import json_option
from peewit.cli.usage import Command

if TYPE_CHECKING:
    from peewit.errors import PeewitError
    from peewit.prediction.predict import Prediction, Source
    from peewit.prediction.rejecting import Rejector
    from peewit.prediction.sorting import Sorter

    Row = Callable[[Sequence[object]], None]


@click.command(
    cls=Command,
    short_help="Classify image files.",
    epilog=examples(
        "peewit predict runs/NAME photo.jpg holiday/ --top 3",
        "peewit predict runs/NAME holiday/ --csv holiday.csv",
        "peewit predict runs/NAME holiday/ --sort-into sorted/",
        "cat photo.jpg | peewit predict runs/NAME -",
        "peewit predict runs/NAME holiday/ --out predictions",
    ),
)
@run_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--top",
    type=Integer(1),
    default=1,
    show_default=True,
    metavar="K",
    help="Number of classes to print for each image, the most likely first.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a table to FILE instead of printing lines: image, the K most likely classes with "
    "their probabilities, and the reason if the image cannot be read.",
)
@click.option(
    "--probabilities", is_flag=True, help="Add the probability of every class to the table."
)
@click.option(
    "--sort-into",
    "--move-to",
    "sort_into",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Copy each image into a folder of FOLDER that is named after its class. Files are never "
    "overwritten: one whose name is taken gets a number.",
)
@click.option("--move", is_flag=True, help="With --sort-into: move the images, do not copy them.")
@click.option(
    "--reject",
    is_flag=True,
    help='Answer "none of these classes" for images that are less like any class than 95% of the '
    "held-out images. With --sort-into, they go to none-of-these.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="For very many images: write a Parquet file to DIR for each archive, or for a thousand "
    "files. A job that was stopped goes on with those that are missing.",
)
@click.option(
    "--features", is_flag=True, help="With --out: add the features that the last layer classifies."
)
@click.option(
    "--shard",
    metavar="I/N",
    help="With --out: do the I-th of N equal parts of the work, for N jobs of any scheduler.",
)
@click.option(
    "--ray",
    "address",
    metavar="ADDRESS",
    help="With --out: let the workers of a Ray cluster do it (auto, local, or ray://host:port).",
)
@json_option
@click.pass_context
def predict(
    context: click.Context,
    folder: Path,
    images: tuple[str, ...],
    top: int,
    csv_file: Path | None,
    probabilities: bool,
    sort_into: Path | None,
    move: bool,
    reject: bool,
    out: Path | None,
    features: bool,
    shard: str | None,
    address: str | None,
    as_json: bool,
) -> None:
    """Classify each IMAGE: a file of any size and format, a folder, or - for standard input.

    Images that cannot be read are named and skipped; the exit code is then 1. Ctrl-C writes the
    table of the images so far. With --out, an IMAGE may also be a tar or zip archive, a folder of
    tar archives, or the address of one (s3://...), and unreadable images are rows of the tables.
    """
    from peewit.errors import Interrupted, PeewitError
    from peewit.prediction.engines import fastest
    from peewit.prediction.predict import STDIN, find_pictures
    from peewit.prediction.rejecting import Rejector
    from peewit.prediction.sorting import Sorter
    from peewit.runs.run import Run

    if move and sort_into is None:
        raise click.UsageError("--move is only for --sort-into: name a folder")
    if probabilities and csv_file is None:
        raise click.UsageError("--probabilities is only for --csv: name a file")
    if sort_into is not None and STDIN in images:
        raise click.UsageError("--sort-into cannot sort standard input: name files")
    if out is None and (features or shard or address):
        raise click.UsageError("--features, --shard and --ray are only for --out: name a folder")
    if out is not None:
        if csv_file or sort_into or reject or as_json or top > 1:
            raise click.UsageError("--out is not for --csv, --sort-into, --reject, --json or --top")
        _in_bulk(folder, images, out, features, shard, address)
        return
    run = Run.open(folder)
    rejector = Rejector(run) if reject else None
    pictures = find_pictures(images, sys.stdin.buffer, note)
    # few images: lowest latency; many: highest throughput
    engine = fastest(run, 1 if len(pictures) < 32 else 64)
    sorter = None if sort_into is None else Sorter(sort_into, run.class_names, move)
    listed = csv_file is None and sorter is None and not as_json
    job = _Job(sorter, min(top, len(run.class_names)), as_json, listed, rejector)
    stopped: BaseException | None = None
    with ExitStack() as stack:
        if csv_file is not None:
            from peewit.system.tables import csv_writer, text_cell

            columns = _columns(job.top) + ["rejected_class"] * reject
            if probabilities:
                job.classes = run.class_names
                columns += [text_cell(name) for name in run.class_names]
            job.write_row = stack.enter_context(csv_writer(csv_file, [*columns, "error"]))
        # lines on the screen show the progress themselves
        hidden = listed and sys.stdout.isatty()
        advance = stack.enter_context(progress_shown(len(pictures), "images", hidden=hidden))
        try:
            job.work(engine, pictures, advance)
        except (KeyboardInterrupt, PeewitError) as error:
            stopped = error  # the rows so far are written
    if as_json:
        print_json(job.answers)
    elif not listed and job.counts:
        click.echo(job.summary())
    if csv_file is not None:
        note(f"wrote {job.done:,} of {len(pictures):,} images to {csv_file}")
    if sorter is not None:
        note(f"{'moved' if move else 'copied'} {job.sorted:,} images into {sort_into}")
    if isinstance(stopped, KeyboardInterrupt):
        raise Interrupted("stopped", f"{job.done:,} of {len(pictures):,} images are classified")
    if stopped is not None:
        raise stopped
    if job.failures:
        context.exit(1)


def _in_bulk(
    folder: Path,
    images: tuple[str, ...],
    out: Path,
    features: bool,
    part: str | None,
    address: str | None,
) -> None:
    """Write a Parquet file for each shard of the images, and print how many were classified."""
    from peewit.prediction import bulk
    from peewit.prediction.engines import fastest
    from peewit.runs.run import Run

    bulk.check_pyarrow(out)
    run = Run.open(folder)
    shards = bulk.find_shards(images, note)
    if part is not None:
        shards = bulk.share(shards, part)
    out.mkdir(parents=True, exist_ok=True)
    missing = [one for one in shards if not bulk.output(one, out).is_file()]
    if len(missing) < len(shards):
        note(f"{len(shards) - len(missing):,} of {len(shards):,} shards are finished already")
    # the fastest engine is measured and stored before workers share the run
    engine = fastest(run)
    classified = unreadable = 0
    with progress_shown(len(missing), "shards") as advance:

        def done(shard: bulk.Shard, counts: bulk.Counts) -> None:
            nonlocal classified, unreadable
            classified, unreadable = classified + counts.classified, unreadable + counts.unreadable
            advance()

        if address is None:
            for one in missing:
                done(one, bulk.classify(run, engine, one, out, features=features))
        else:
            from peewit.prediction.cluster import classify_on_ray

            classify_on_ray(address, folder, missing, out, features=features, done=done)
    click.echo(f"classified {classified:,} images, {unreadable:,} could not be read: {out}")


def _columns(top: int) -> list[str]:
    """Return the names of the first columns of the table.

    >>> _columns(2)
    ['image', 'predicted', 'confidence', 'class_2', 'probability_2']
    """
    ranks = [
        name for rank in range(2, top + 1) for name in (f"class_{rank}", f"probability_{rank}")
    ]
    return ["image", "predicted", "confidence", *ranks]


class _Job:
    """What is done with each prediction, and what has been done."""

    def __init__(
        self,
        sorter: Sorter | None,
        top: int,
        as_json: bool,
        listed: bool,
        rejector: Rejector | None,
    ) -> None:
        self.sorter, self.top, self.as_json, self.listed = sorter, top, as_json, listed
        self.rejector = rejector
        self.write_row: Row | None = None
        self.classes: Sequence[str] = ()  # whose probabilities are in the table
        self.answers: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.done = self.failures = self.sorted = 0

    def work(self, engine: Any, pictures: Sequence[Source], advance: Callable[[], None]) -> None:
        """Classify all pictures."""
        from peewit.errors import PeewitError
        from peewit.prediction.predict import predict as predict_pictures

        top = len(self.classes) or self.top
        answers = predict_pictures(engine, pictures, top, self.rejector)
        with contextlib.closing(answers):  # type: ignore[type-var]
            for picture, answer in zip(pictures, answers, strict=True):
                if isinstance(answer, PeewitError):
                    self._fail(picture, answer)
                else:
                    self._use(picture, answer)
                self.done += 1
                advance()

    def summary(self) -> str:
        """Return how many images were predicted of each class, as a table."""
        from peewit.system.terminal import text_table

        rows = [[name, f"{count:,}"] for name, count in self.counts.most_common()]
        return text_table(["class", "images"], rows, "lr")

    def _fail(self, picture: Source, error: PeewitError) -> None:
        self.failures += 1
        complain(error)
        if self.write_row is not None:
            from peewit.system.tables import file_cell, text_cell

            rejecting = self.rejector is not None
            empty = [""] * (2 * self.top + rejecting + len(self.classes))
            self.write_row([file_cell(picture.name), *empty, text_cell(str(error))])

    def _use(self, picture: Source, answer: Prediction) -> None:
        from peewit.evaluation.rejection import NONE

        best, _ = answer.labels[0]
        if self.sorter is not None:
            from peewit.prediction.sorting import UnreadablePicture

            assert isinstance(picture.content, Path), "standard input was refused"
            try:
                self.sorter.put(picture.content, None if answer.rejected else best)
            except UnreadablePicture as error:
                self._fail(picture, error)
                return
            self.sorted += 1
        self.counts[NONE if answer.rejected else best] += 1
        if self.as_json:
            shown = answer.to_dict()
            self.answers.append(shown | {"labels": shown["labels"][: self.top]})
        elif self.listed:
            click.echo(answer)
        if self.write_row is not None:
            from peewit.system.tables import file_cell, text_cell

            found = dict(answer.labels)
            row: list[object] = [file_cell(picture.name)]
            for name, share in answer.labels[: self.top]:
                row += [text_cell(name), f"{share:.6f}"]
            if answer.rejected is not None:
                row.append(text_cell(best) if answer.rejected else "")
            if answer.rejected:
                row[1] = NONE
            self.write_row([*row, *(f"{found[name]:.6f}" for name in self.classes), ""])
