"""The command that shows the training images most similar to a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from peewit.cli.options import Integer, examples, run_argument
from peewit.cli.output import (
    complain,
    decoding_shown,
    download_shown,
    note,
    print_json,
    sized_splits,
)
from peewit.cli.runs import json_option
from peewit.cli.usage import Command


@click.command(
    cls=Command,
    short_help="Find the training images most similar to image files.",
    epilog=examples(
        "peewit similar runs/NAME photo.jpg",
        "peewit similar runs/NAME holiday/ --count 10 --html similar.html",
    ),
)
@run_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--count",
    type=Integer(1),
    default=5,
    show_default=True,
    metavar="K",
    help="Number of training images to show for each image.",
)
@click.option(
    "--data", type=click.Path(), metavar="PATH", help="Archive or folder, if the data has moved."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page with the pictures to FILE.",
)
@json_option
@click.pass_context
def similar(
    context: click.Context,
    folder: Path,
    images: tuple[str, ...],
    count: int,
    data: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show the training images most similar to each IMAGE: why RUN classifies it as it does.

    Similar are images with similar features before the last layer of the network: for each, the
    cosine similarity, the class and the file are printed. The data that RUN was trained on must
    still be there. Images that cannot be read are named and skipped; the exit code is then 1.
    """
    from peewit.data.sources import load, moved
    from peewit.errors import PeewitError
    from peewit.prediction.engines import Torch
    from peewit.prediction.predict import Prediction, find_pictures
    from peewit.prediction.similar import SimilarImages
    from peewit.runs.run import Run
    from peewit.runs.tested import find_tested

    run = Run.open(folder)
    if not run.source:
        raise PeewitError(
            f"cannot show training images of {folder}", "it does not record where its data is"
        )
    sources = find_pictures(images, sys.stdin.buffer, note)
    with download_shown() as progress:
        splits = load(**moved(run.source, data), progress=progress)
    splits = sized_splits(run, splits)
    found = find_tested(run, splits.train, splits.test)
    for sentence in found.notes:
        note(sentence)
    with decoding_shown() as show:
        index = SimilarImages(run, found.fitted, show)
    engine, answers, figures, failures = Torch(run), [], [], 0
    for source in sources:
        try:
            pixels = engine.read(source.content, source.name)
        except PeewitError as error:
            complain(error)
            failures += 1
            continue
        shares = engine.probabilities(pixels[None])[0]
        best = int(shares.argmax())
        prediction = Prediction(source.name, ((run.class_names[best], float(shares[best])),))
        (neighbours,) = index.of(pixels[None], count)
        answers.append(
            prediction.to_dict() | {"similar": [neighbour.to_dict() for neighbour in neighbours]}
        )
        if html is not None:
            figures.append((prediction, pixels, neighbours))
        if not as_json and html is None:
            click.echo(prediction)
            for neighbour in neighbours:
                click.echo(f"  {neighbour}")
    if html is not None:
        from peewit.report.similar_page import Answer, write_similar

        write_similar(run, index, [Answer(*figure) for figure in figures], html)
        note(f"wrote {html}")
    if as_json:
        print_json(answers)
    if failures:
        context.exit(1)
