"""The READMEs match each other and the repository; test_docs.py runs their code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import CHINESE, README, ROOT, blocks, shell_lines


def test_both_languages_show_the_same_code() -> None:
    assert blocks(README) == blocks(CHINESE)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shown = [line.split()[1] for line in shell_lines(README) if line.startswith("make ")]
    assert shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("path", [README, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:src|tests|benchmarks)/[\w/.-]+|\.ci/run)`", text)
    for target in (*links, *named):
        assert (ROOT / target).exists(), f"{path.name} names {target}"
