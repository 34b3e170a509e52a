"""From a template to one HTML file that needs no other, and may load none."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Any

import jinja2

import peewit


def render(template: str, **contents: Any) -> str:
    """Return the page that ``template`` makes of ``contents``.

    Whatever stands in ``contents`` is text: class names, paths and recipes are escaped. The
    page's own content security policy forbids scripts, and everything from outside.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("peewit.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (files("peewit.report") / "templates" / "style.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        style=style, policy=policy, version=peewit.__version__, **contents
    )
