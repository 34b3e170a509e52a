"""Check the built site: it loads nothing from other hosts, and its internal links work.

usage: python scripts/check_site.py [FOLDER]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parents[1] / "build" / "site"
EXTERNAL = re.compile(r"(https?:)?//", re.IGNORECASE)
LOADED_BY_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)")


class Page(HTMLParser):
    """The links of a page, the files it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the links, files and anchors of one element."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a":
            self.links.append(values.get("href", ""))
        # <link> elements load a file, except those that only describe the page
        elif tag != "link" or values.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loaded += [values[name] for name in ("src", "srcset", "href") if name in values]


def problems(site: Path) -> Iterator[str]:
    """Yield a message for each problem of the site."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loaded:
            if EXTERNAL.match(target):
                yield f"{name} loads {target}"
        for target in (*page.links, *page.loaded):
            parts = urlsplit(target)
            # the 404 page is served at any path, so its links start at the root
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                yield f"{name} links to {target}, which does not exist"
            elif parts.fragment and file in pages:
                # names that start with "__" are used by the theme's script
                anchor = unquote(parts.fragment)
                if anchor not in pages[file].anchors and not anchor.startswith("__"):
                    yield f"{name} links to {target}, which is not an anchor of that page"
    for path in sorted(site.rglob("*.css")):
        for target in LOADED_BY_CSS.findall(path.read_text("utf-8")):
            if EXTERNAL.match(target):
                yield f"{path.relative_to(site)} loads {target}"


if __name__ == "__main__":
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    if not (site / "index.html").is_file():
        sys.exit(f"{site} has no index.html: build the site first")
    found = list(problems(site.resolve()))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
