"""The notebooks are what their source makes, say the same in each language, and run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def _make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_make", NOTEBOOKS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _make()
BOOKS = [
    (source, language, name)
    for source, names in make.NOTEBOOKS.items()
    for language, name in enumerate(names)
]


@pytest.mark.parametrize(("source", "language", "name"), BOOKS, ids=[name for *_, name in BOOKS])
def test_committed_notebooks_are_what_their_source_makes(
    source: str, language: int, name: str
) -> None:
    kept = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(kept)
    made = make.notebook(source, language)
    hint = "run notebooks/make.py"
    assert [cell.source for cell in kept.cells] == [cell.source for cell in made.cells], hint
    assert [cell.cell_type for cell in kept.cells] == [cell.cell_type for cell in made.cells], hint
    assert kept.metadata == made.metadata, hint


def test_the_tutorial_runs_from_the_top(archive: Path, tmp_path: Path) -> None:
    changes = {
        "DATA": str(archive),
        "IMAGES": 300,
        "EPOCHS": 2,
        "BUDGET": {"epochs": 1, "model": "fast-xs"},
        "PART": 200,
    }
    outputs = make.run(make.notebook("tutorial", 0), tmp_path, changes)
    text = "\n".join(output.get("text", "") for cell in outputs for output in cell)
    assert "128 + 256 + 128 = 512" in text
