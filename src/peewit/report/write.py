"""Writing of reports: the HTML page of a run, its picture files, and the comparison page."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

import peewit
from peewit.data.audit import Audit
from peewit.errors import PeewitError
from peewit.report import audit_page, comparison_page, run_page
from peewit.report.evidence import Evidence, Explanation, explain
from peewit.report.pictures import first_filters, save_pictures
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.system.files import write_text

# The training has succeeded, so an error in its report must not make the command fail
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
    """Write a run's report: one HTML file, and its pictures as files in the run folder.

    Parameters
    ----------
    run : Run
    evidence : Evidence, optional
        The images and the model's outputs for them. Without it, the report shows the picture files
        that the training left in the run folder.
    missing : str
        Why there is no evidence, shown to the reader.
    out : Path, optional
        The HTML file; by default ``report.html`` in the run folder. If given, no other file is
        written.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    PeewitError
        A file cannot be read or written.
    """
    # There are no weights before the end of the first epoch
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
            save_pictures(run, evidence, [*right, *wrong], first_filters(model))
    path = out or run.path / runfolder.REPORT
    contents = run_page.contents(run, model, evidence, (right, wrong), missing, heat_missing, path)
    write_text(path, render("run.html", **contents))
    return path


def after_training(run: Run, evidence: Evidence, note: Callable[[str], None]) -> None:
    """Write the report at the end of training; if that fails, pass the reason to ``note``."""
    try:
        write_report(run, evidence)
    except FAILURES as error:
        reason = (
            str(error) if isinstance(error, PeewitError) else f"{type(error).__name__}: {error}"
        )
        note(f"cannot write the report ({reason}); the run itself is complete: {run.path}")


def write_comparison(runs: Sequence[Run], out: Path) -> Path:
    """Write one HTML file that compares ``runs``; return its path.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    write_text(out, render("compare.html", **comparison_page.contents(runs)))
    return out


def write_audit(audit: Audit, out: Path) -> Path:
    """Write one HTML file with the findings of an audit; return its path.

    Raises
    ------
    PeewitError
        The file cannot be written.
    """
    write_text(out, render("audit.html", **audit_page.contents(audit)))
    return out


def render(template: str, **contents: Any) -> str:
    """Render ``template`` as a self-contained HTML page.

    All ``contents`` are escaped: class names, paths and recipes are text. The page's content
    security policy forbids scripts and external resources.
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
