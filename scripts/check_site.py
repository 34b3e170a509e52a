"""Check the built site: it loads nothing from elsewhere, and its own links lead somewhere.

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
ELSEWHERE = re.compile(r"(https?:)?//", re.IGNORECASE)
LOADED_BY_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)")


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a":
            self.links.append(values.get("href", ""))
        # of links in the head, these say something about the page and load nothing
        elif tag != "link" or values.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loaded += [values[name] for name in ("src", "srcset", "href") if name in values]


def problems(site: Path) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loaded:
            if ELSEWHERE.match(target):
                yield f"{name} loads {target}"
        for target in (*page.links, *page.loaded):
            parts = urlsplit(target)
            # the page for what is missing can be asked for anywhere, so its links begin at the root
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                yield f"{name} links to {target}, which is not there"
            elif parts.fragment and file in pages:
                # "__" begins the names that the theme's script uses
                place = unquote(parts.fragment)
                if place not in pages[file].places and not place.startswith("__"):
                    yield f"{name} links to {target}, and there is no such place"
    for path in sorted(site.rglob("*.css")):
        for target in re.findall(
            r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", path.read_text("utf-8")
        ):
            if ELSEWHERE.match(target):
                yield f"{path.relative_to(site)} loads {target}"


if __name__ == "__main__":
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    if not (site / "index.html").is_file():
        sys.exit(f"there is no site in {site}")
    found = list(problems(site.resolve()))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
