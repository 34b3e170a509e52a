"""What the start of a training finds in its data, from what it computes anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peewit.data.audit.copies import copies
from peewit.data.audit.findings import KINDS, Finding
from peewit.data.dataset import Dataset
from peewit.data.listing import TEST, TRAIN, UNKNOWN, VALIDATION

# Sets of pictures that are recorded of each kind, and pictures of each set
SETS, PER_SET = 20, 10


class _Pictures(NamedTuple):
    labels: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    class_names: Sequence[str]


def quick_findings(
    listed: Sequence[str],
    notes: Sequence[str],
    dataset: Dataset,
    test: Dataset | None,
    near: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Return unreadable pictures, copies and the imbalance of the classes, for ``run.json``.

    Parameters
    ----------
    listed : sequence of str
        The names of all pictures of the source.
    notes : sequence of str
        What the source left out.
    dataset, test : Dataset
        The pictures of both parts that can be read, with names.
    near : int64 array, shape (N + M,)
        Groups of near-duplicates among both.

    Returns
    -------
    dict
        ``notes``; ``imbalance``, the number of training pictures of the largest class divided by
        that of the smallest; ``kinds``, a list with the ``kind``, the number of ``pictures`` and
        the first ``sets`` of related pictures, by name, of each kind that was found.
    """
    both = [part for part in (dataset, test) if part is not None]
    names = [name for part in both for name in part.names or ()]
    # the parts of the source: those that are drawn later keep copies on one side
    parts = np.full(len(names), UNKNOWN)
    if dataset.validation is not None or test is not None:
        parts[: len(dataset)] = TRAIN
        parts[len(dataset) :] = TEST
    if dataset.validation is not None:
        parts[: len(dataset)][dataset.validation] = VALIDATION
    labels = np.concatenate([part.labels for part in both])
    hashes = np.concatenate([part.image_hashes for part in both])
    pictures = _Pictures(labels, parts, dataset.class_names)
    found: dict[str, list[Finding]] = {}
    for finding in copies(pictures, np.arange(len(names)), hashes, near):
        found.setdefault(finding.kind, []).append(finding)
    kept = {*names}
    unreadable = [name for name in listed if name not in kept]
    kinds: list[dict[str, Any]] = []
    if unreadable:
        sets = [[name] for name in unreadable[:SETS]]
        kinds.append({"kind": "unreadable", "pictures": len(unreadable), "sets": sets})
    for kind in KINDS:
        if kind in found:
            chosen = together(found[kind])[:SETS]
            rows = [(one.row, *one.others)[:PER_SET] for one in chosen]
            sets = [[names[row] for row in one] for one in rows]
            kinds.append({"kind": kind, "pictures": len(found[kind]), "sets": sets})
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    imbalance = float(counts.max(initial=0) / max(counts.min(initial=len(dataset)), 1))
    return {"notes": list(notes), "imbalance": imbalance, "kinds": kinds}


def together(findings: Sequence[Finding]) -> list[Finding]:
    """Return one finding of each set of related pictures."""
    seen: set[int] = set()
    found = []
    for finding in findings:
        if finding.row not in seen:
            found.append(finding)
        seen.update((finding.row, *finding.others))
    return found
