"""Making a run's report: the page and the picture files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jinja2

from peewit.errors import PeewitError
from peewit.report import files, page
from peewit.report.evidence import Evidence
from peewit.report.explanations import Explanation, explain
from peewit.report.inline import first_filters
from peewit.report.render import render
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import write_text

# Whatever goes wrong in the report, the training before it has gone well, and must end well
FAILURES = (
    PeewitError,
    OSError,
    MemoryError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
)


def write_report(
    run: Run,
    evidence: Evidence | None = None,
    *,
    missing: str = "",
    out: Path | None = None,
) -> Path:
    """Write a run's report: one HTML file, and its pictures as files in the run's folder.

    Parameters
    ----------
    run : Run
    evidence : Evidence, optional
        The pictures and the answers to them. Without it the report has those pictures only that
        the training left as files in the run's folder.
    missing : str
        Why there is no evidence, for the reader.
    out : Path, optional
        The file; by default ``report.html`` in the run's folder. With it nothing else is
        written.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    PeewitError
        A file cannot be read or written.
    """
    # no weights before the first epoch has ended
    model = run.model() if (run.path / runfolder.WEIGHTS).is_file() else None
    right: list[Explanation] = []
    wrong: list[Explanation] = []
    heat_missing = ""
    if evidence is not None and model is not None:
        try:
            right, wrong = (
                explain(evidence, chosen, model, run.preprocessing) for chosen in evidence.explained
            )
        except PeewitError as error:
            heat_missing = str(error)
        if out is None:
            files.draw(run, evidence, [*right, *wrong], first_filters(model))
    contents = page.contents(run, model, evidence, (right, wrong), missing, heat_missing)
    path = out or run.path / runfolder.REPORT
    write_text(path, render("run.html", **contents))
    return path


def after_training(run: Run, evidence: Evidence, note: Callable[[str], None]) -> None:
    """Write the report of a training that has just ended; where that fails, say so by ``note``."""
    try:
        write_report(run, evidence)
    except FAILURES as error:
        reason = (
            str(error) if isinstance(error, PeewitError) else f"{type(error).__name__}: {error}"
        )
        note(f"there is no report ({reason}); everything else is there, see {run.path}")
