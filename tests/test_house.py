"""The house rules that a reader relies on: which way imports point, and that files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "peewit"
FILES = sorted(SOURCE.rglob("*.py"))
LINES = 500

# From left to right along the way of the data. A box may import from its own layer and from those
# before it, never from one after it. A new box gets its place here first.
LAYERS = (
    {"errors"},
    {"system"},
    {"data"},
    {"images"},
    {"kernels"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"runs"},
    {"export", "importing"},
    {"prediction"},
    {"plots"},
    {"report"},
    {"trainer"},
    {"serving"},
    {"cli"},
    {"__main__"},
)
LAYER = {box: number for number, layer in enumerate(LAYERS) for box in layer}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def box(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file, for types only too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} has a relative import, line {node.lineno}"
            assert node.module is not None
            if node.module == "peewit":
                yield from (f"peewit.{alias.name}" for alias in node.names)
            else:
                yield node.module


# __init__.py only gives the public names, of every box
@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parts[-2:] != ("peewit", "__init__.py")], ids=name
)
def test_imports_point_one_way(path: Path) -> None:
    for module in imports(path):
        package, _, rest = module.partition(".")
        # the version is for everybody
        if package != "peewit" or rest in ("", "__version__"):
            continue
        other = rest.partition(".")[0]
        assert LAYER[other] <= LAYER[box(path)], f"{name(path)} must not import {module}"


def test_every_box_has_its_place() -> None:
    boxes = {box(path) for path in FILES} - {"__init__"}
    assert boxes == set(LAYER)


def test_data_knows_nothing_of_torch() -> None:
    for path in FILES:
        if box(path) == "data":
            assert not {module.partition(".")[0] for module in imports(path)} & {"torch"}, path


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_stay_small(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LINES, f"{name(path)} has {count} lines: part it"
