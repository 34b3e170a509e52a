"""A wrong command line is reported in one sentence that names things as they were typed."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from peewit.__main__ import main
from peewit.cli import cli
from peewit.cli.options import Choice, Integer, Number
from peewit.cli.usage import Command, Group, flags_named
from peewit.errors import PeewitError, UsageError


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trian", "there is no command 'trian'; did you mean train?"),
        ("xyzzy", "there is no command 'xyzzy'; see 'peewit --help'"),
        ("data wher", "there is no command 'wher'; did you mean where?"),
        ("--vresion", "there is no option --vresion; did you mean --version?"),
        ("--version=1", "--version takes no value; see 'peewit --help'"),
        ("runs --xyzzy", "there is no option --xyzzy; see 'peewit runs --help'"),
        ("runs -x", "there is no option -x; see 'peewit runs --help'"),
        ("runs --help=1", "--help takes no value; see 'peewit runs --help'"),
        ("train digits --epoch 2", "there is no option --epoch; did you mean --epochs?"),
        ("train digits --epochs", "--epochs needs a value; see 'peewit train --help'"),
        ("train digits --coarse=1", "--coarse takes no value; see 'peewit train --help'"),
        ("train digits --no-tta=1", "--no-tta takes no value; see 'peewit train --help'"),
        (
            "train digits --epochs two",
            "--epochs is 'two': it must be a whole number; see 'peewit train --help'",
        ),
        (
            "train digits --lr fast",
            "--lr is 'fast': it must be a number; see 'peewit train --help'",
        ),
        (
            "train digits --validate-on luck",
            "--validate-on is 'luck': it must be holdout or test; see 'peewit train --help'",
        ),
        ("show", "SOURCE is missing; see 'peewit show --help'"),
        ("summary", "MODEL or RUN is missing; see 'peewit summary --help'"),
        ("predict runs/a", "IMAGE is missing; see 'peewit predict --help'"),
        (
            "predict runs/a a.png --top 0",
            "--top is 0: it must be a whole number, at least 1; see 'peewit predict --help'",
        ),
        ("compare", "name two runs or more; see 'peewit compare --help'"),
        (
            "export runs/a",
            "--to is missing: it must be onnx, openvino, keras or torch; see 'peewit export",
        ),
        ("import model.h5", "--classes is missing; see 'peewit import --help'"),
        (
            "completion tcsh",
            "SHELL is 'tcsh': it must be bash, zsh or fish; see 'peewit completion --help'",
        ),
        ("completion", "SHELL is missing: it must be bash, zsh or fish; see 'peewit"),
        (
            "serve runs/a --port 70000",
            "--port is 70000: it must be a whole number from 0 to 65535; see 'peewit serve --help'",
        ),
        (
            "serve runs/a --port http",
            "--port is 'http': it must be a whole number from 0 to 65535; see 'peewit serve",
        ),
        (
            "summary tutorial fast-s more",
            "too many arguments: fast-s more; see 'peewit summary --help'",
        ),
        ("data fetch cifar10 now", "too many arguments: now; see 'peewit data fetch --help'"),
        (
            "show digits --indices a",
            "--indices: 'a' is not a number such as 7 or a range such as 100-103; see 'peewit show",
        ),
        ("show digits --seed -1", "--seed is -1: it must be a whole number, at least 0; see"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"peewit: {sentence}")
    assert output.err.count("\n") == 1


def commands(group: click.Group) -> Iterator[click.Command]:
    """Yield a group and all commands below it."""
    yield group
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_every_command_reports_its_errors_in_sentences_of_ours() -> None:
    for command in commands(cli):
        assert isinstance(command, (Command, Group)), command.name
        for parameter in command.params:
            # any text or path is valid, and so is a flag; the others refuse values in our words
            kinds = (Choice, Integer, Number, click.Path, type(click.STRING), type(click.BOOL))
            assert isinstance(parameter.type, kinds), f"{command.name} {parameter.name}"


def test_a_group_without_a_command_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("Usage: peewit data")
    assert output.err == ""


@pytest.mark.parametrize(
    ("fields", "problem", "what"),
    [
        (["lr"], "is 0.0", "--lr is 0.0"),
        (["batch_size"], "is 5,000", "--batch-size is 5,000"),
        (
            ["epochs", "until_accuracy"],
            "are both given",
            "--epochs and until_accuracy are both given",
        ),
        (["seed"], "is 3", "seed is 3"),  # not given as a flag, so it is the recipe's
    ],
)
def test_fields_given_as_flags_are_named_by_their_flags(
    fields: list[str], problem: str, what: str
) -> None:
    with (
        pytest.raises(UsageError) as error,
        flags_named(["lr", "batch_size", "epochs"]),
    ):
        raise UsageError(problem, "because", "do it", fields=fields)
    assert (error.value.what, error.value.why, error.value.todo) == (what, "because", "do it")


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(UsageError, match=r"^lr is unknown$"), flags_named(["lr"]):
        raise UsageError("lr is unknown")
    with pytest.raises(PeewitError, match=r"^lr is gone$"), flags_named(["lr"]):
        raise PeewitError("lr is gone")
