"""``peewit serve``: predictions in a browser and through an HTTP API."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from peewit.cli.options import Integer, examples, run_argument
from peewit.cli.output import note
from peewit.cli.usage import Command
from peewit.system.streams import reader_may_leave

CUT_OFF = "the server has stopped; unfinished requests were cut off"


@click.command(
    cls=Command,
    short_help="Serve predictions on a web page and through an HTTP API.",
    epilog=examples("peewit serve runs/NAME", "peewit serve runs/NAME --port 9000 --open"),
)
@run_argument
@click.option(
    "--port",
    type=Integer(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 picks any free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. The default accepts connections from this machine only, 0.0.0.0 "
    "from every machine that can reach it.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Additional host name under which this server may be reached. May be repeated.",
)
@click.option("--open", "show", is_flag=True, help="Open the page in a browser.")
def serve(folder: Path, port: int, host: str, names: tuple[str, ...], show: bool) -> None:
    """Serve the predictions of RUN on a web page and through an HTTP API, until Ctrl-C.

    Prints the address. The page accepts images that are dropped, pasted, chosen or taken with the
    camera. Programs send them with POST /api/predict; /docs describes the API.
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
        with reader_may_leave():
            click.echo(address)
        if open_to_others:
            note("anybody who can reach this machine can use the page: there is no password")
        note("press Ctrl-C to stop")
        if show:
            click.launch(address)
        finished = answer(app, listener, limits, partial(note, CUT_OFF))
    note("the server has stopped; all requests were answered" if finished else CUT_OFF)


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
