"""Generate the notebooks from their sources, and run them.

    python notebooks/make.py                        write them; keep outputs if the code is the same
    python notebooks/make.py --run --data ARCHIVE   run them and store the outputs

The sources are the ``*_cells.py`` files in this folder, with the code once and the text in each
language. All notebooks of a source have the same code, which is run once for all of them. ARCHIVE
is a CIFAR-10 archive in the python layout; without it, Peewit finds or downloads one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config import Config

HERE = Path(__file__).parent
# source: its notebooks, in the order of the languages in its prose cells
NOTEBOOKS = {
    "tutorial": ("tutorial.ipynb", "tutorial.zh-CN.ipynb"),
    "keras": ("keras-side-by-side.ipynb",),
}
# nbformat's own metadata contain the Python version of the last run
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Chinese characters and punctuation
WIDE = "[\u2018-\u201d\u3000-\u9fff\uff00-\uffef]"
STOPS = "[，。；：、（）？！”]"
# TensorFlow's C++ log lines on stderr, which depend on the machine and the time
LOG = re.compile(
    r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:|To enable the following instr).*\n?",
    re.MULTILINE,
)
# training cells may take any time; a dead kernel is detected anyway
NO_LIMIT = None


def cells_of(source: str) -> Sequence[str | tuple[str, ...]]:
    """Return the cells of a source: code as a string, prose as a tuple of one text per language."""
    spec = importlib.util.spec_from_file_location(source, HERE / f"{source}_cells.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cells: Sequence[str | tuple[str, ...]] = module.CELLS
    return cells


def joined(text: str) -> str:
    """Remove line breaks that would render as spaces between Chinese characters."""
    return re.sub(rf"(?<={WIDE})\n(?={WIDE})|(?<={STOPS})\n(?=`)", "", text)


def notebook(source: str, language: int) -> NotebookNode:
    """Return a notebook without outputs. Its first code cell contains the parameters."""
    cells = []
    for number, cell in enumerate(cells_of(source)):
        made = (
            new_code_cell(cell.strip())
            if isinstance(cell, str)
            else new_markdown_cell(joined(cell[language].strip()))
        )
        made["id"] = f"cell-{number}"  # nbformat's own are random
        cells.append(made)
    parameters = next(cell for cell in cells if cell.cell_type == "code")
    parameters.metadata["tags"] = ["parameters"]
    return new_notebook(cells=cells, metadata=METADATA)


def run(
    book: NotebookNode,
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[list[NotebookNode]]:
    """Run a notebook in ``folder``, and return the outputs of its code cells.

    Parameters
    ----------
    book : NotebookNode
        It is not modified.
    folder : Path
        The working directory.
    changes : mapping, optional
        Values that override those of the parameters cell.
    environment : mapping, optional
        Environment variables for the kernel, in addition to those of this process.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed.
    """
    copy = nbformat.from_dict(book)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    for name, value in (changes or {}).items():
        assert re.search(rf"^{name} = ", code[0].source, re.MULTILINE), f"no parameter {name}"
        code[0].source += f"\n{name} = {value!r}"
    with tempfile.TemporaryDirectory() as sockets:
        NotebookClient(
            copy,
            timeout=NO_LIMIT,
            coalesce_streams=True,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            config=connection(Path(sockets)),
        ).execute(env={**os.environ, **(environment or {})})
    found = [[clean(output, folder) for output in cell.outputs] for cell in code]
    return [[output for output in cell if output.get("text") != ""] for cell in found]


def connection(folder: Path) -> Config:
    """Return a kernel configuration that uses sockets in ``folder``, if the system supports it.

    A TCP port that is free when chosen may be taken before the kernel binds it.
    """
    if os.name == "nt":
        return Config()
    return Config(KernelManager={"transport": "ipc", "connection_file": str(folder / "k.json")})


def clean(output: NotebookNode, folder: Path) -> NotebookNode:
    """Remove what is specific to this machine and this run from an output."""
    text = nbformat.v4.writes(new_notebook(cells=[new_code_cell(outputs=[output])]))
    for place in (str(folder), str(folder.resolve()), sys.prefix, str(Path.home())):
        text = text.replace(place.replace("\\", "\\\\\\\\"), "~")
    cleaned = nbformat.v4.reads(text).cells[0].outputs[0]
    cleaned.pop("transient", None)
    if cleaned.get("name") == "stderr":
        cleaned.text = LOG.sub("", cleaned.text)
    return cleaned


def with_outputs(book: NotebookNode, outputs: Sequence[Sequence[NotebookNode]]) -> NotebookNode:
    """Return the notebook with ``outputs`` in its code cells."""
    copy = nbformat.from_dict(book)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    for number, (cell, kept) in enumerate(zip(code, outputs, strict=True), start=1):
        cell.outputs, cell.execution_count = list(kept), number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output["execution_count"] = number
    return copy


def outputs_of(book: NotebookNode) -> list[list[NotebookNode]]:
    """Return the outputs of a notebook's code cells."""
    return [cell.outputs for cell in book.cells if cell.cell_type == "code"]


def kept_outputs(book: NotebookNode, path: Path) -> list[list[NotebookNode]] | None:
    """Return the outputs in the file ``path`` if its code is that of ``book``, else None."""
    if not path.is_file():
        return None
    old = nbformat.read(path, as_version=4)
    code, before = (
        [cell.source for cell in one.cells if cell.cell_type == "code"] for one in (book, old)
    )
    outputs = outputs_of(old)
    return outputs if code == before and any(outputs) else None


def run_whole(source: str, archive: Path | None) -> list[list[NotebookNode]]:
    """Run the unmodified notebook of a source on ``archive``, in a temporary folder."""
    with tempfile.TemporaryDirectory() as place:
        folder, environment = Path(place), {}
        if archive is not None:
            # where Peewit looks by default, so that the notebook needs no change; relative, so that
            # the path in the outputs is the same on every machine
            environment["PEEWIT_HOME"] = "data"
            target = folder / "data" / "cifar-10-python.tar.gz"
            target.parent.mkdir()
            try:
                target.symlink_to(archive.resolve())
            except OSError:  # creating links needs a privilege on Windows
                shutil.copy(archive, target)
        return run(notebook(source, 0), folder, environment=environment)


def main() -> None:
    """Write the notebooks, and run them with ``--run``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", help=f"any of {', '.join(NOTEBOOKS)} (default: all)")
    parser.add_argument("--run", action="store_true", help="run them and store the outputs")
    parser.add_argument("--data", type=Path, metavar="ARCHIVE", help="a CIFAR-10 archive")
    given = parser.parse_args()
    for source in given.sources or NOTEBOOKS:
        if source not in NOTEBOOKS:
            parser.error(f"unknown source {source}: choose from {', '.join(NOTEBOOKS)}")
        outputs = run_whole(source, given.data) if given.run else None
        for language, name in enumerate(NOTEBOOKS[source]):
            book = notebook(source, language)
            shown = outputs or kept_outputs(book, HERE / name)
            nbformat.write(with_outputs(book, shown) if shown else book, HERE / name)
            print(HERE / name, file=sys.stderr)


if __name__ == "__main__":
    main()
