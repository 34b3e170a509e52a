"""The table of benchmarks/README.md names every script that measures, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_table_has_every_script() -> None:
    scripts = set()
    for path in FOLDER.glob("*.py"):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        # the others are called by these, or imported
        if f"python benchmarks/{path.name}" in said:
            scripts.add(path.name)
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.py)` \| \S", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(scripts)
