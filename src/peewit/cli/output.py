"""Results go to stdout, for people and for scripts; notes go to stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from peewit.system.text import printable

if TYPE_CHECKING:
    from peewit.errors import PeewitError
    from peewit.runs.run import Run


def note(sentence: str) -> None:
    """Tell something on stderr that is no result."""
    click.echo(f"note: {printable(sentence)}", err=True)


def complain(error: PeewitError) -> None:
    """Tell a failure on stderr that does not end the command."""
    click.echo(f"peewit: {printable(str(error))}", err=True)


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return names for a sentence, the first ``most`` of them.

    >>> shortened(["cat", "dog", "frog"], most=2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def print_json(value: Any) -> None:
    """Print ``value`` as JSON, UTF-8, a key a line."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_run(run: Run) -> None:
    """Print how good a finished run is, and where it is."""
    if run.metrics:
        low, high = run.metrics["accuracy_interval"]
        click.echo(
            f"accuracy {run.metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}) "
            f"on {run.metrics['images']:,} {run.metrics['split']} images"
        )
    click.echo(run.path)
