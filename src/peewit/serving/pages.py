"""The page for people, the page about the API, and their parts, all of them in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PAGES = {"/": "page.html", "/docs": "docs.html"}


def add_to(app: FastAPI) -> None:
    """Add the pages, and everything in ``static/`` under ``/static``."""
    files = sorted(path.name for path in STATIC.iterdir() if path.suffix in TYPES)
    assets = {f"/static/{name}": name for name in files if not name.endswith(".html")}
    for address, name in (PAGES | assets).items():
        app.router.routes.append(_route(address, STATIC / name))


def _route(address: str, path: Path) -> Route:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    media_type = TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        headers = {"etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return Route(address, answer)
