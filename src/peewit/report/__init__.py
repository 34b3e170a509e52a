"""One self-contained HTML page from a Run, or from several."""

from peewit.report.compare import write_comparison
from peewit.report.evidence import Evidence, gather
from peewit.report.write import after_training, write_report

__all__ = ["Evidence", "after_training", "gather", "write_comparison", "write_report"]
