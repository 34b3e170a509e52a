"""Where the pictures come from: a name or a path becomes labelled images, never more."""

from peewit.data.dataset import Dataset
from peewit.data.sources import SOURCES, SourceNotAvailable, Splits, load, where

__all__ = ["SOURCES", "Dataset", "SourceNotAvailable", "Splits", "load", "where"]
