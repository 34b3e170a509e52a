"""The page of an audit: the findings with their pictures, in one HTML file."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

from PIL import Image

from peewit.data.audit import KINDS, Audit, Finding
from peewit.data.audit.findings import PARTS
from peewit.data.audit.quick import together
from peewit.errors import PeewitError
from peewit.images.scaled import probe, read_sized
from peewit.system.text import counted

# Findings of each kind with pictures, related pictures beside each, and the side of a thumbnail
SHOWN, BESIDE, SIDE = 24, 3, 112
QUALITY = 80
# Ratios of the largest class to the smallest that are named
IMBALANCED = 1.5


def contents(audit: Audit) -> dict[str, Any]:
    """Return the values of the template ``audit.html``."""
    listing = audit.listing
    thumbnails: dict[int, str] = {}
    counts = audit.class_counts()
    parts = [part for part in (*PARTS[1:], "all") if any(part in one for one in counts.values())]
    sides = [min(side) for side in audit.sides] or [0]
    return {
        "title": f"{listing.place.name} - Peewit",
        "name": listing.place.name,
        "place": str(listing.place),
        "notes": list(listing.notes),
        "tiles": [
            ("pictures", f"{len(listing):,}", ""),
            ("classes", f"{len(listing.class_names):,}", _imbalance(audit)),
            ("shorter side", _between(min(sides), max(sides)), "pixels"),
            ("formats", ", ".join(audit.formats) or "-", ""),
            ("pixel formats", ", ".join(audit.modes) or "-", "as Pillow names them"),
        ],
        "parts": parts,
        "classes": [
            (name, [f"{one.get(part, 0):,}" for part in parts]) for name, one in counts.items()
        ],
        "kinds": [
            {
                "kind": kind,
                "meaning": KINDS[kind],
                "count": counted(count, "picture"),
                "single": not any(finding.others for finding in audit.of(kind)),
                "hidden": max(0, len(together(audit.of(kind))) - SHOWN),
                "rows": [
                    _row(audit, finding, thumbnails) for finding in together(audit.of(kind))[:SHOWN]
                ],
            }
            for kind, count in audit.counts.items()
        ],
    }


def _between(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _imbalance(audit: Audit) -> str:
    if audit.imbalance < IMBALANCED:
        return "about equally many pictures"
    return f"the largest has {audit.imbalance:.1f} times as many pictures as the smallest"


def _row(audit: Audit, finding: Finding, thumbnails: dict[int, str]) -> dict[str, Any]:
    shown = (finding.row, *finding.others[:BESIDE])
    return {
        "detail": finding.detail,
        "more": len(finding.others) - BESIDE if len(finding.others) > BESIDE else 0,
        "pictures": [
            {
                "name": str(audit.listing.names[row]),
                "label": audit.listing.class_names[audit.listing.labels[row]],
                "image": thumbnails.setdefault(row, _thumbnail(audit, row)),
            }
            for row in shown
        ],
    }


def _thumbnail(audit: Audit, row: int) -> str:
    """Return a picture as a data URL; empty if it cannot be read."""
    try:
        content = audit.listing.files.read(row)
        info = probe(content)
        longer = max(info.width, info.height)
        width, height = (max(1, SIDE * side // longer) for side in (info.width, info.height))
        pixels = read_sized(content, height=height, width=width, fit="stretch")
    except PeewitError:
        return ""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + b64encode(file.getvalue()).decode("ascii")
