"""Imbalanced classes: whether to weight the loss, and the weights. No PyTorch here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from peewit.data.dataset import Dataset
from peewit.training.defaults import Note
from peewit.training.recipe import Recipe

# From this ratio of the largest class to the smallest on, the user is told
NOTED = 2.0
POWER = 0.5
