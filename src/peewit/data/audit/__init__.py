"""Find what is wrong with a data set of pictures, and correct it in a copy."""

from peewit.data.audit.check import check
from peewit.data.audit.findings import KINDS, Audit, Finding

__all__ = ["KINDS", "Audit", "Finding", "check"]
