"""Write docs/benchmarks.md: what the README says of the speed, and the benchmarks' own README.

``make docs`` does it. The page is not kept: whatever is said of numbers is said in one place.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
# the headings of the README's sections that tell results
SECTIONS = ("How fast",)


def page() -> str:
    """Return the whole page."""
    scripts = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    title, _, rest = scripts.partition("\n")
    results = [section(readme, heading) for heading in SECTIONS]
    return "\n".join([title, "", *results, "## The scripts", rest])


def section(text: str, heading: str) -> str:
    """Return a section of the README with its heading.

    >>> section("# A\\n\\n## B\\n[log](results/b.txt)\\n\\n## C\\n", "B")
    '## B\\nlog, `results/b.txt`\\n'
    """
    found = re.search(rf"^## {re.escape(heading)}$.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no section {heading!r}: see SECTIONS in {__file__}")
    # the site has pages and pictures; the other files of the repository are only named
    linked = re.sub(r"\]\(docs/", "](", found[0])
    linked = re.sub(r"(?<!!)\[([^]]*)\]\(((?!https?:)[^)#]+)\)", r"\1, `\2`", linked)
    return linked.rstrip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8", newline="\n")
