"""The notebooks match their sources, have the same code in each language, and run."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# larger notebooks open slowly, and GitHub does not render them
LARGEST = 2_000_000


def _make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_make", NOTEBOOKS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _make()
BOOKS = {
    name: (source, language)
    for source, names in make.NOTEBOOKS.items()
    for language, name in enumerate(names)
}


def kept(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / name, as_version=4)


def code(book: NotebookNode) -> list[str]:
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


outputs = make.outputs_of


def shown(cells: list[list[NotebookNode]]) -> str:
    """Return all outputs in plain text."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in cells
        for output in cell
    ]
    return "\n".join(texts)


def marks(cell: NotebookNode) -> list[str]:
    """Return the heading levels and inline code of a prose cell, which no translation changes."""
    found = re.findall(r"^#+ |`[^`]+`", cell.source, re.MULTILINE)
    return sorted(" ".join(mark.split()) for mark in found)


def test_every_notebook_has_a_source() -> None:
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(BOOKS)


@pytest.mark.parametrize("name", BOOKS)
def test_committed_notebooks_match_their_source(name: str) -> None:
    book, made = kept(name), make.notebook(*BOOKS[name])
    nbformat.validate(book)
    hint = "run notebooks/make.py"
    assert [cell.source for cell in book.cells] == [cell.source for cell in made.cells], hint
    assert [cell.cell_type for cell in book.cells] == [cell.cell_type for cell in made.cells], hint
    assert book.metadata == made.metadata, hint


def test_both_languages_have_the_same_code_and_outputs() -> None:
    english, chinese = map(kept, make.NOTEBOOKS["tutorial"])
    assert code(english) == code(chinese)
    assert outputs(english) == outputs(chinese)
    kinds = [[cell.cell_type for cell in book.cells] for book in (english, chinese)]
    assert kinds[0] == kinds[1]
    for one, other in zip(english.cells, chinese.cells, strict=True):
        if one.cell_type == "markdown":
            assert re.search("[\u4e00-\u9fff]", other.source), other.source
            assert not re.search("[\u4e00-\u9fff]", one.source), one.source
            # the same heading levels and inline code
            assert marks(one) == marks(other)


@pytest.mark.parametrize("name", BOOKS)
def test_stored_outputs_have_no_errors_and_no_local_paths(name: str) -> None:
    cells = outputs(kept(name))
    text = json.dumps(cells)
    assert len(text) < LARGEST
    assert not re.search(r"/home/|/root|/tmp|/Users/|[A-Z]:\\\\", text)
    for cell in cells:
        for output in cell:
            assert output.output_type != "error"


def test_chinese_lines_are_joined_without_spaces() -> None:
    text = "中文。\n没有空格\n`code`\nEnglish\nhas."
    assert make.joined(text) == "中文。没有空格\n`code`\nEnglish\nhas."
    assert make.joined("一段。\n`code`\n\n二段。\n\n`code`") == "一段。`code`\n\n二段。\n\n`code`"


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of kernels that share the decoded archive, which takes seconds to create."""
    return {"PEEWIT_HOME": str(tmp_path_factory.mktemp("decoded"))}


def test_the_tutorial_runs(archive: Path, decoded: dict[str, str], tmp_path: Path) -> None:
    changes = {
        "DATA": str(archive),
        "IMAGES": 200,
        "EPOCHS": 2,
        "BUDGET": {"epochs": 1, "model": "fast-xs"},
        "FINE_TUNING": {"epochs": 0},
        "PART": 100,
    }
    found = make.run(make.notebook("tutorial", 0), tmp_path, changes, decoded)
    text = shown(found)
    assert "128 + 256 + 128 = 512" in text
    # no warnings, no superfluous outputs
    assert not [output for cell in found for output in cell if output.get("name") == "stderr"]
    assert all(len(cell) <= 1 for cell in found)
    # one output that is updated during training and ends as the table
    (training,) = (cell[0].data["text/plain"] for cell in found if "  1/2 " in shown([cell]))
    assert training.splitlines()[0].split()[:2] == ["epoch", "loss"]
    assert "note: testing on 200 test images" in training.splitlines()
    pictures = [
        output for cell in found for output in cell if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    assert (tmp_path / "pictures" / "0-truck.jpg").is_file()


def test_the_side_by_side_notebook_runs(
    archive: Path, decoded: dict[str, str], tmp_path: Path
) -> None:
    environment = dict(decoded)
    if importlib.util.find_spec("tensorflow") is None:
        environment["PYTHONPATH"] = str(Path(__file__).parent / "tensorflow_stand_in")
    changes = {"DATA": str(archive), "IMAGES": 200, "EPOCHS": 1}
    found = make.run(make.notebook("keras", 0), tmp_path, changes, environment)
    text = shown(found)
    assert "159,018" in text
    (difference,) = re.findall(r"largest difference of 200 x 10 logits: (\S+)", text)
    assert float(difference) < 1e-4
    assert "model.keras" in text


def test_an_error_is_shown_as_one_line(tmp_path: Path) -> None:
    book = new_notebook(
        cells=[new_code_cell("import peewit"), new_code_cell("peewit.load('cifar11')")]
    )
    with pytest.raises(CellExecutionError) as caught:
        make.run(book, tmp_path)
    _, shown_instead = caught.value.traceback.split("peewit.load('cifar11')\n")
    lines = [line for line in shown_instead.splitlines() if line.strip("- ")]
    assert len(lines) == 1  # no traceback
    assert lines[0].startswith("UsageError: ")
    assert "cifar11" in lines[0]


def test_a_run_finds_the_archive_without_a_local_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from peewit.data.sources import where
found = [place.path for place in where("cifar10") if place.found]
print(found[0].as_posix(), found[0].read_text())
"""
    book = new_notebook(cells=[new_code_cell(source)])
    monkeypatch.setattr(make, "notebook", lambda *_: book)
    archive = tmp_path / "brought.tar.gz"
    archive.write_text("pictures")
    ((output,),) = make.run_whole("tutorial", archive)
    assert output.text == "data/cifar-10-python.tar.gz pictures\n"


def test_writing_keeps_the_outputs_of_unchanged_code(tmp_path: Path) -> None:
    prose, code_cell = new_markdown_cell("old"), new_code_cell("print(1)")
    ran = make.with_outputs(
        new_notebook(cells=[prose, code_cell]), [[new_output("stream", text="1\n")]]
    )
    path = tmp_path / "book.ipynb"
    nbformat.write(ran, path)
    reworded = new_notebook(cells=[new_markdown_cell("new"), new_code_cell("print(1)")])
    assert make.kept_outputs(reworded, path) == outputs(ran)
    assert make.kept_outputs(new_notebook(cells=[new_code_cell("print(2)")]), path) is None
    assert make.kept_outputs(reworded, tmp_path / "none.ipynb") is None


def test_local_paths_are_removed_from_outputs(tmp_path: Path) -> None:
    book = new_notebook(cells=[new_code_cell("from pathlib import Path\nprint(Path.cwd())")])
    ((output,),) = make.run(book, tmp_path)
    assert output.text == "~\n"
    ((again,),) = outputs(make.with_outputs(book, [[output]]))
    assert again == output


def test_tensorflow_log_lines_are_removed_from_outputs(tmp_path: Path) -> None:
    log = "\n".join(
        [
            "WARNING: All log messages before absl::InitializeLog() is called are written",
            "I0000 00:00:1795521297.159271   17434 port.cc:153] oneDNN custom operations are on.",
        ]
    )
    source = f"import sys\nprint({log!r}, file=sys.stderr)"
    code_cells = [new_code_cell(source), new_code_cell(source + "\nprint('!', file=sys.stderr)")]
    first, second = make.run(new_notebook(cells=code_cells), tmp_path)
    assert first == []
    assert [output.text for output in second] == ["!\n"]
