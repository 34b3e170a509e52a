"""The command line: parse, call the package, print the result.

No command imports torch, matplotlib, Pillow or scikit-learn before it needs them, so that
``peewit --help`` and completion respond at once.
"""

from __future__ import annotations

import click

from peewit import __version__
from peewit.cli.data import data, show
from peewit.cli.exchange import export, import_
from peewit.cli.options import Choice, examples
from peewit.cli.predict import predict
from peewit.cli.reproduce import reproduce
from peewit.cli.runs import compare, evaluate, report, runs, summary
from peewit.cli.serve import serve
from peewit.cli.similar import similar
from peewit.cli.train import train
from peewit.cli.usage import Command, Group


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("peewit train cifar10", "peewit COMMAND --help  # more help, with examples"),
)
@click.version_option(__version__, prog_name="peewit", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train, evaluate, explain, export and serve image classifiers on the CPU you have."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command(
    cls=Command,
    short_help="Print a shell completion script.",
    epilog=examples(
        "peewit completion bash >> ~/.bashrc",
        "peewit completion zsh >> ~/.zshrc",
        "peewit completion fish > ~/.config/fish/completions/peewit.fish",
    ),
)
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes the commands, options and names of peewit."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click supports all three
    click.echo(kind(cli, {}, "peewit", "_PEEWIT_COMPLETE").source())


for command in (
    train,
    show,
    summary,
    data,
    evaluate,
    predict,
    similar,
    serve,
    report,
    runs,
    compare,
    reproduce,
    export,
    import_,
    completion,
):
    cli.add_command(command)
