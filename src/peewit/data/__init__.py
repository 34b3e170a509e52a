"""Data sets: turn the name of a source, or a path, into labelled images."""

from peewit.data.dataset import Dataset
from peewit.data.formats import listing_of
from peewit.data.sources import SOURCES, SourceNotAvailable, Splits, load, where

__all__ = ["SOURCES", "Dataset", "SourceNotAvailable", "Splits", "listing_of", "load", "where"]
