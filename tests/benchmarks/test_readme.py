"""The table in benchmarks/README.md lists every benchmark, with logs that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_table_lists_every_benchmark() -> None:
    scripts = set()
    for path in FOLDER.glob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        # the other files are helpers
        if f"python benchmarks/{path.name}" in docstring:
            scripts.add(path.name)
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.py)` \| \S", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(scripts)


def test_every_log_is_listed_and_exists() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w-]+\.(?:txt|jsonl)|main_job/)`", text))
    results = {path.name + "/" * path.is_dir() for path in (FOLDER / "results").iterdir()}
    assert listed == {name for name in results if not name.endswith((".state", ".part"))}
