"""The commands that write pages: report and compare --html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peewit.__main__ import main
from peewit.data.sources import load
from peewit.runs import folder as runfolder
from peewit.runs.run import Run


@pytest.fixture
def digits(make: Any) -> Run:
    """A finished run whose source is digits."""
    pytest.importorskip("sklearn")
    test = load("digits").test
    assert test is not None
    run: Run = make(list(test.class_names), pictures=len(test), channels=1, noise=2.0).run
    facts = runfolder.read_json(run.path / "run.json")
    source = {"source": "digits", "data": None, "coarse": False}
    runfolder.write_facts(run.path, facts | {"source": source})
    return Run.open(run.path)


def test_report_loads_the_data_again(
    digits: Run, read: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(digits.path)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{digits.path / 'report.html'}\n"
    page = read(digits.path / "report.html")
    assert (3, "Training images") in page.headings
    assert "Not available" not in page.text
    assert "was not loaded" not in page.text
    assert (digits.path / "heatmaps.png").is_file()


def test_report_into_another_file(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(digits.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.is_file()
    assert not (digits.path / "report.html").exists()


def test_report_without_the_data_says_why(
    make: Any, read: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(["cat", "dog"]).run  # its source is cifar10
    nowhere = run.path.parent / "nowhere"
    assert main(["report", str(run.path), "--data", str(nowhere)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{run.path / 'report.html'}\n"
    assert output.err.startswith("note: ")
    assert "without the data" in output.err
    assert output.err.count("\n") == 1
    assert str(nowhere) in output.err
    assert str(nowhere) in read(run.path / "report.html").text


def test_report_of_an_unfinished_run_does_not_load_the_data(
    make: Any, read: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(["cat", "dog"]).run
    runfolder.write_finished(run.path, False)
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().err == ""
    assert "has not been tested yet" in read(run.path / "report.html").text


def test_report_of_another_folder_fails_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("peewit: ")
    assert "run.json" in output.err
    assert output.err.count("\n") == 1


def test_compare_writes_a_page(make: Any, read: Any, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(make(["cat", "dog"], folder=name).run.path) for name in ("one", "two")]
    assert main(["compare", *paths, "--html"]) == 0
    output = capsys.readouterr()
    assert "one" in output.out
    assert output.err.startswith("note: ")
    assert output.err.endswith(" compared.html\n")
    assert output.err.count("\n") == 1
    assert "Comparison of 2 runs" in read(Path("compared.html")).text
    assert not Path("compared.png").exists()
    assert main(["compare", *paths, "--html", "--out", "mine.html", "--json"]) == 0
    assert Path("mine.html").is_file()
