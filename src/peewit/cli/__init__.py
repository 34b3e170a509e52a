"""The command line: parse, call, print. What a command does is said by the modules it calls.

Nothing here imports torch, matplotlib, Pillow or scikit-learn before a command needs it, so that
``peewit --help`` and completion answer at once.
"""

from __future__ import annotations

import click

from peewit import __version__
from peewit.cli.data import data, show
from peewit.cli.exchange import export, import_
from peewit.cli.group import Group
from peewit.cli.options import examples
from peewit.cli.report import report
from peewit.cli.runs import compare, evaluate, predict, runs, summary
from peewit.cli.serve import serve
from peewit.cli.train import train


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("peewit train cifar10", "peewit COMMAND --help  # says more, with examples"),
)
@click.version_option(__version__, prog_name="peewit", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Peewit trains image classifiers on the CPU you have: fast, exact, honest."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command(
    short_help="Make a shell complete commands, options and names.",
    epilog=examples(
        "peewit completion bash >> ~/.bashrc",
        "peewit completion zsh >> ~/.zshrc",
        "peewit completion fish > ~/.config/fish/completions/peewit.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete peewit's commands, options and names."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click brings all three
    click.echo(kind(cli, {}, "peewit", "_PEEWIT_COMPLETE").source())


for command in (
    train,
    show,
    summary,
    data,
    evaluate,
    predict,
    serve,
    report,
    runs,
    compare,
    export,
    import_,
    completion,
):
    cli.add_command(command)
