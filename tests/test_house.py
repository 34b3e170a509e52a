"""The rules for the source tree: direction of imports, size of files, names, package docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "peewit"
FILES = sorted(SOURCE.rglob("*.py"))
PACKAGES = [path.parent for path in FILES if path.name == "__init__.py"]
MOST_LINES = 500
# modules directly in src/peewit, besides __init__ and __main__
MOST_LOOSE_MODULES = 6
# names that say nothing about what a module contains
VAGUE = {"base", "common", "core", "helpers", "lib", "misc", "shared", "stuff", "tools"} | {
    "util",
    "utils",
    "various",
}

# In import order, along the way of the data. A top-level module or package may import from its own
# layer and from the layers before it. A new one is added here first.
LAYERS = (
    {"errors"},
    {"system"},
    {"images"},
    {"data"},
    {"kernels"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"runs"},
    {"export", "importing"},
    {"transfer"},
    {"prediction"},
    {"plots"},
    {"report"},
    {"cross_validation"},
    {"trainer"},
    {"serving"},
    {"cli"},
    {"__main__"},
)
LAYER = {part: number for number, layer in enumerate(LAYERS) for part in layer}


def name(path: Path) -> str:
    """Return a path below ``src/peewit``, for test ids and messages."""
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    """Return the top-level module or package that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions and for type checking."""
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


# peewit/__init__.py exports the public names of every layer
@pytest.mark.parametrize(
    "path", [path for path in FILES if path != SOURCE / "__init__.py"], ids=name
)
def test_imports_point_one_way(path: Path) -> None:
    for module in imports(path):
        package, _, rest = module.partition(".")
        # every layer may import the version
        if package != "peewit" or rest in ("", "__version__"):
            continue
        other = rest.partition(".")[0]
        assert LAYER[other] <= LAYER[part_of(path)], f"{name(path)} must not import {module}"


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} - {"__init__"} == set(LAYER)


def test_data_does_not_import_torch() -> None:
    for path in FILES:
        if part_of(path) == "data":
            assert "torch" not in {module.partition(".")[0] for module in imports(path)}, path


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_short(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= MOST_LINES, f"{name(path)} has {count} lines: split it"


def test_few_modules_are_outside_packages() -> None:
    loose = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= MOST_LOOSE_MODULES, f"move some of these into packages: {sorted(loose)}"


def test_every_folder_with_modules_is_a_package() -> None:
    # setuptools would leave its files out of the wheel
    assert {path.parent for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES, ids=name)
def test_packages_say_in_a_sentence_what_they_contain(package: Path) -> None:
    text = (package / "__init__.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    first, _, _ = docstring.partition("\n")
    assert re.fullmatch(r"[A-Z`].{10,}\.", first), f"{name(package)}/__init__.py: {first!r}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_names_are_plain(path: Path) -> None:
    if path.name in ("__init__.py", "__main__.py"):
        return
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+){0,2}", path.stem), f"{name(path)}: rename it"
    assert path.stem not in VAGUE, f"{name(path)}: name it after what it contains"
    parents = path.relative_to(SOURCE).parts[:-1]
    assert path.stem not in parents, f"{name(path)} repeats the name of its package"
    assert not any(path.stem.startswith(f"{parent}_") for parent in parents), (
        f"{name(path)} repeats the name of its package"
    )
