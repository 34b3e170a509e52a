"""The notebooks are what their source makes, have the same code in each language, and run."""

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
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# larger ones take long to open, and GitHub shows none above some MB
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


def outputs(book: NotebookNode) -> list[list[NotebookNode]]:
    return [cell.outputs for cell in book.cells if cell.cell_type == "code"]


def shown(cells: list[list[NotebookNode]]) -> str:
    """Everything that the outputs say in plain text."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in cells
        for output in cell
    ]
    return "\n".join(texts)


def marks(cell: NotebookNode) -> list[str]:
    """The headings and the code in prose, which do not depend on the language."""
    found = re.findall(r"^#+ |`[^`]+`", cell.source, re.MULTILINE)
    return sorted(" ".join(mark.split()) for mark in found)


def test_all_notebooks_are_made() -> None:
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(BOOKS)


@pytest.mark.parametrize("name", BOOKS)
def test_committed_notebooks_are_what_their_source_makes(name: str) -> None:
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
            # the same headings at the same places, the same code in the text
            assert marks(one) == marks(other)


@pytest.mark.parametrize("name", BOOKS)
def test_kept_outputs_are_whole_and_name_no_machine(name: str) -> None:
    cells = outputs(kept(name))
    text = json.dumps(cells)
    assert len(text) < LARGEST
    assert not re.search(r"/home/|/root|/tmp|/Users/|[A-Z]:\\\\", text)
    for cell in cells:
        for output in cell:
            assert output.output_type != "error"


def test_chinese_lines_are_joined_without_gaps() -> None:
    text = "中文。\n没有空格\n`code`\nEnglish\nhas."
    assert make.joined(text) == "中文。没有空格\n`code`\nEnglish\nhas."


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of kernels that share the decoded archive, which takes seconds to make."""
    return {"PEEWIT_HOME": str(tmp_path_factory.mktemp("decoded"))}


def test_the_tutorial_runs_from_the_top(
    archive: Path, decoded: dict[str, str], tmp_path: Path
) -> None:
    changes = {
        "DATA": str(archive),
        "IMAGES": 200,
        "EPOCHS": 2,
        "BUDGET": {"epochs": 1, "model": "fast-xs"},
        "PART": 100,
    }
    found = make.run(make.notebook("tutorial", 0), tmp_path, changes, decoded)
    text = shown(found)
    assert "128 + 256 + 128 = 512" in text
    # nothing but what the cells are there for: no warnings, no empty outputs
    assert not [output for cell in found for output in cell if output.get("name") == "stderr"]
    assert all(len(cell) <= 1 for cell in found)
    # one changing output, which ends as the table
    (training,) = (cell[0].data["text/plain"] for cell in found if "  1/2 " in shown([cell]))
    assert training.splitlines()[0].split()[:2] == ["epoch", "loss"]
    assert training.splitlines()[-1] == "note: testing on 200 test images"
    pictures = [
        output for cell in found for output in cell if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    assert (tmp_path / "pictures" / "0-truck.jpg").is_file()


def test_the_tutorial_in_keras_runs_beside_it(
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


def test_a_failure_is_shown_as_a_sentence(tmp_path: Path) -> None:
    book = new_notebook(
        cells=[new_code_cell("import peewit"), new_code_cell("peewit.load('cifar11')")]
    )
    with pytest.raises(CellExecutionError) as caught:
        make.run(book, tmp_path)
    _, shown_instead = caught.value.traceback.split("peewit.load('cifar11')\n")
    lines = [line for line in shown_instead.splitlines() if line.strip("- ")]
    assert lines == [
        "UsageError: there is no source cifar11: known are cifar10, cifar100 and digits; give one "
        "of these, or the path of an archive or a folder"
    ]


def test_outputs_are_cleaned_of_the_machine(tmp_path: Path) -> None:
    book = new_notebook(cells=[new_code_cell("from pathlib import Path\nprint(Path.cwd())")])
    ((output,),) = make.run(book, tmp_path)
    assert output.text == "~\n"
    ((again,),) = outputs(make.with_outputs(book, [[output]]))
    assert again == output
