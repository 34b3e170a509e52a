"""The command that answers in a browser: serve."""

from __future__ import annotations

from pathlib import Path

import click

from peewit.cli.options import examples, run_argument
from peewit.cli.output import note


@click.command(
    short_help="Open a page, and an API, that say what pictures show.",
    epilog=examples("peewit serve runs/NAME", "peewit serve runs/NAME --port 9000 --open"),
)
@run_argument
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Where to listen; 0 takes any free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. The default is for this machine alone; 0.0.0.0 is for everybody "
    "who can reach it.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name that others reach this machine by. Can be given several times.",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def serve(folder: Path, port: int, host: str, names: tuple[str, ...], show: bool) -> None:
    """Answer with the network of RUN, on a page and by an API, until Ctrl-C.

    The address is printed. The page takes pictures that are dropped, pasted, picked or taken with
    the camera. POST /api/predict takes them from programs; /docs describes the API.
    """
    from peewit.runs.run import Run

    run = Run.open(folder)
    _require_extra()
    from peewit.serving.app import create_app
    from peewit.serving.limits import Limits
    from peewit.serving.server import address_of, bind, is_loopback
    from peewit.serving.server import serve as answer

    limits = Limits()
    open_to_others = not is_loopback(host)
    with bind(host, port) as listener:
        app = create_app(run, limits, names=(host, *names), any_address=open_to_others)
        address = address_of(listener)
        click.echo(address)
        if open_to_others:
            note("everybody who can reach this machine can use the page, without a password")
        note("Ctrl-C ends it")
        if show:
            click.launch(address)
        finished = answer(app, listener, limits)
    if finished:
        note("all requests were answered; the server has ended")
    else:
        note("the server has ended; what it had not finished answering was cut off")


def _require_extra() -> None:
    from importlib.util import find_spec

    from peewit.errors import PeewitError

    needed = ("fastapi", "httptools", "prometheus_client", "python_multipart", "uvicorn")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise PeewitError(
            "peewit serve needs packages that are not installed",
            ", ".join(missing),
            "install them: pip install 'peewit[serve]'",
        )
