"""Image classifiers trained on the CPU you have.

>>> import peewit
>>> peewit.Recipe().epochs
10
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peewit.system import openmp

__version__ = "0.1.0"

if TYPE_CHECKING:
    from peewit.data.dataset import Dataset as Dataset
    from peewit.data.sources import Splits as Splits
    from peewit.data.sources import load as load
    from peewit.errors import Interrupted as Interrupted
    from peewit.errors import PeewitError as PeewitError
    from peewit.errors import UsageError as UsageError
    from peewit.estimator import ImageClassifier as ImageClassifier
    from peewit.evaluation.metrics import Evaluation as Evaluation
    from peewit.evaluation.metrics import evaluate as evaluate
    from peewit.images.preprocessing import Preprocessing as Preprocessing
    from peewit.plots.notebook import show as show
    from peewit.prediction.predict import Prediction as Prediction
    from peewit.prediction.predict import predict as predict
    from peewit.runs.run import Run as Run
    from peewit.trainer import train as train
    from peewit.training.callbacks import Callback as Callback
    from peewit.training.recipe import Recipe as Recipe

# public name -> its module, which is imported on first use (PEP 562), so that `import peewit` and
# `peewit --help` do not wait for torch
_PLACES = {
    "Callback": "peewit.training.callbacks",
    "Dataset": "peewit.data.dataset",
    "Evaluation": "peewit.evaluation.metrics",
    "ImageClassifier": "peewit.estimator",
    "Interrupted": "peewit.errors",
    "PeewitError": "peewit.errors",
    "Prediction": "peewit.prediction.predict",
    "Preprocessing": "peewit.images.preprocessing",
    "Recipe": "peewit.training.recipe",
    "Run": "peewit.runs.run",
    "Splits": "peewit.data.sources",
    "UsageError": "peewit.errors",
    "evaluate": "peewit.evaluation.metrics",
    "load": "peewit.data.sources",
    "predict": "peewit.prediction.predict",
    "show": "peewit.plots.notebook",
    "train": "peewit.trainer",
}
__all__ = ["__version__", *_PLACES]

# here, because any module below may be the first to import torch
openmp.prepare()


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'peewit' has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
