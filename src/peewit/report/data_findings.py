"""What a run's report shows of the errors that were found in its pictures."""

from __future__ import annotations

from typing import Any

from peewit.data.audit import KINDS
from peewit.report.evidence import Evidence
from peewit.report.pictures import embedded
from peewit.report.sentences import IMBALANCED
from peewit.runs.run import Run
from peewit.system.text import command

# Names of each kind; sets of related pictures of each kind with pictures, and pictures of each
NAMED, SETS, PER_SET = 5, 6, 4


def contents(run: Run, evidence: Evidence | None) -> dict[str, Any]:
    """Return what the section on the data shows; empty if nothing was looked for.

    Parameters
    ----------
    run : Run
    evidence : Evidence or None
        Without it, there are no pictures.
    """
    found = run.findings
    if not found:
        return {}
    notes = list(found["notes"])
    if found["imbalance"] >= IMBALANCED:
        times = f"{found['imbalance']:.1f} times as many"
        notes.append(f"the largest class has {times} training pictures as the smallest")
    figures = {} if evidence is None else _figures(run, evidence)
    kinds = []
    for one in found["kinds"]:
        named = [" = ".join(names) for names in one["sets"][:NAMED]]
        if one["kind"].startswith("similar"):
            named = [" ~ ".join(names) for names in one["sets"][:NAMED]]
        more = ["..."] if len(one["sets"]) > NAMED else []
        kinds.append(
            {
                "kind": one["kind"],
                "pictures": f"{one['pictures']:,}",
                "meaning": KINDS.get(one["kind"], ""),
                "names": [*named, *more],
                "sets": _shown(one["sets"], figures),
            }
        )
    source = run.source.get("source")
    check = command(["peewit", "data", "check", source, "--out", "check"]) if source else ""
    return {"notes": notes, "kinds": kinds, "command": check}


def _shown(sets: list[list[str]], figures: dict[str, dict[str, str]]) -> list[list[dict[str, str]]]:
    """Return figures of the first sets of which two pictures are there."""
    known = ([figures[name] for name in names[:PER_SET] if name in figures] for names in sets)
    return [one for one in known if len(one) > 1][:SETS]


def _figures(run: Run, evidence: Evidence) -> dict[str, dict[str, str]]:
    """Return a figure of each picture that a recorded set names, by its name."""
    wanted = {name for one in run.findings["kinds"] for names in one["sets"] for name in names}
    found = {}
    for data in (evidence.training, evidence.judged):
        for row, name in enumerate(data.names or () if wanted else ()):
            if name in wanted:
                label = data.class_names[data.labels[row]]
                found[name] = {"uri": embedded(data.images[row]), "label": label, "name": name}
    return found
