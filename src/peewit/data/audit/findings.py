"""What an audit finds: one finding per picture and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peewit.data.listing import Listing

# What each kind of finding means. First those that make a test wrong, then those that make a
# classifier worse, then those that are worth a look.
KINDS: Mapping[str, str] = {
    "unreadable": "cannot be decoded, and is left out of every training",
    "identical in two parts": "the same picture is in another part",
    "similar in two parts": "a near-duplicate is in another part",
    "identical with two labels": "the same picture has two labels",
    "similar with two labels": "a near-duplicate has another label",
    "suspicious label": "a classifier that was not trained on it is sure of another class",
    "identical": "the same picture is there more than once",
    "similar": "a near-duplicate is there",
    "misnamed": "the suffix says another format than the content",
    "tiny": "the shorter side has few pixels",
    "constant": "all pixels have nearly the same colour",
    "dark": "nearly black",
    "blurred": "far fewer details than in the other pictures",
    "outlier": "unlike all others in layout, edges and colours",
}
# The parts of a data set by their numbers in a listing
PARTS = ("", "train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about one picture.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    row : int
        The picture's number in the listing.
    detail : str
        What exactly, in a few words; may be empty.
    others : tuple of int
        Related pictures, such as its copies.
    action : str
        The proposed correction: ``keep``, ``remove``, ``relabel CLASS`` or ``rename NAME``.
    """

    kind: str
    row: int
    detail: str = ""
    others: tuple[int, ...] = ()
    action: str = "keep"


@dataclass(frozen=True, eq=False, kw_only=True)
class Audit:
    """The result of an audit.

    Parameters
    ----------
    listing : Listing
    findings : sequence of Finding
        In the order of ``KINDS``, then of the listing.
    formats, modes : Counter of str
        How many pictures there are of each format and of each of Pillow's modes.
    sides : sequence of tuple of int
        Width and height of each readable picture.
    imbalance : float
        The number of pictures of the largest class, divided by that of the smallest.
    """

    listing: Listing
    findings: Sequence[Finding]
    formats: Counter[str]
    modes: Counter[str]
    sides: Sequence[tuple[int, int]]
    imbalance: float

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of a kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def counts(self) -> dict[str, int]:
        """The number of pictures with a finding of each kind that was found."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pictures of each class in each part."""
        names = self.listing.class_names
        found: dict[str, dict[str, int]] = {name: {} for name in names}
        pairs = zip(self.listing.labels.tolist(), self.listing.parts.tolist(), strict=True)
        for (label, part), count in sorted(Counter(pairs).items(), key=lambda item: item[0][1]):
            found[names[label]][PARTS[part] or "all"] = count
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        listing = self.listing
        return {
            "source": str(listing.place),
            "pictures": len(listing),
            "classes": self.class_counts(),
            "imbalance": self.imbalance,
            "formats": dict(self.formats.most_common()),
            "modes": dict(self.modes.most_common()),
            "notes": list(listing.notes),
            "counts": self.counts,
            "findings": [
                {
                    "file": listing.names[finding.row],
                    "label": listing.class_names[listing.labels[finding.row]],
                    "finding": finding.kind,
                    "detail": finding.detail,
                    "others": [listing.names[row] for row in finding.others],
                    "action": finding.action,
                }
                for finding in self.findings
            ],
        }
