"""HTML reports: a self-contained page about one run, or one that compares several."""

from peewit.report.evidence import Evidence, gather
from peewit.report.write import after_training, write_comparison, write_report

__all__ = ["Evidence", "after_training", "gather", "write_comparison", "write_report"]
