"""Wrong command lines: what is said names things as they are typed."""

from __future__ import annotations

import click
import pytest

from peewit.__main__ import main
from peewit.cli.usage import flags_named, usage_sentence
from peewit.errors import PeewitError, UsageError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "there is no command 'trian'; did you mean train?"),
        ("xyzzy", "there is no command 'xyzzy'; see 'peewit --help'"),
        ("data wher", "there is no command 'wher'; did you mean where?"),
        ("--vresion", "there is no option --vresion; did you mean --version?"),
        ("runs --xyzzy", "there is no option --xyzzy; see 'peewit runs --help'"),
        ("train digits --epoch 2", "there is no option --epoch; did you mean --epochs?"),
        ("train digits --epochs", "--epochs needs a value"),
        ("train digits --coarse=1", "--coarse takes no value"),
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
        ("compare", "name two runs or more; see 'peewit compare --help'"),
        (
            "export runs/a",
            "--to is missing: onnx, openvino, keras or torch; see 'peewit export --help'",
        ),
        ("import model.h5", "--classes is missing; see 'peewit import --help'"),
        (
            "completion tcsh",
            "SHELL is 'tcsh': it must be bash, zsh or fish; see 'peewit completion --help'",
        ),
        (
            "serve runs/a --port 70000",
            "--port is 70000: it must be a whole number from 0 to 65535; see 'peewit serve --help'",
        ),
        ("summary tutorial fast-s more", "too many arguments: fast-s more; see 'peewit summary"),
        (
            "show digits --indices a",
            "--indices: 'a' is not like 7 or 100-103; see 'peewit show --help'",
        ),
        ("show digits --seed -1", "--seed is -1: it must be at least 0"),
    ],
)
def test_wrong_command_lines_are_one_sentence(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"peewit: {said}")
    assert output.err.count("\n") == 1


def test_a_lowest_value_without_a_highest() -> None:
    command = click.Command("c", params=[click.Option(["-n", "--number"], type=click.IntRange(2))])
    with pytest.raises(click.BadParameter) as error:
        command.main(["-n", "1"], standalone_mode=False)
    said = usage_sentence(error.value)
    assert said.startswith("--number is 1: it must be a whole number, at least 2; see '")


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("Usage: peewit data")
    assert output.err == ""


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("lr is 0.0", "--lr is 0.0"),
        ("batch_size is 5,000", "--batch-size is 5,000"),
        ("epochs and until_accuracy are both given", "--epochs and until_accuracy are both given"),
        ("there is no lr in this", "there is no lr in this"),
        ("seed is 3", "seed is 3"),  # not given on the command line: so it is a recipe's
    ],
)
def test_fields_that_were_given_as_flags_are_named_so(what: str, named: str) -> None:
    with (
        pytest.raises(UsageError) as error,
        flags_named(["lr", "batch_size", "epochs"]),
    ):
        raise UsageError(what, "because", "do it")
    assert (error.value.what, error.value.why, error.value.todo) == (named, "because", "do it")


def test_other_failures_stay_as_they_are() -> None:
    with pytest.raises(PeewitError, match=r"^lr is gone$"), flags_named(["lr"]):
        raise PeewitError("lr is gone")
