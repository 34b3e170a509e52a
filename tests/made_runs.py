"""Finished runs of any model with random weights, made without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from peewit.evaluation.metrics import evaluate
from peewit.images.preprocessing import Preprocessing
from peewit.models.fast import Fast
from peewit.models.registry import build
from peewit.runs import folder as runfolder
from peewit.runs.run import Run
from peewit.training import checkpoint, environment
from peewit.training.recipe import Recipe
from peewit.training.state import HISTORY_COLUMNS


def lively(model: nn.Module) -> nn.Module:
    """Set different weights and statistics everywhere, so that a test notices a missing one."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                if module.weight is not None and module.weight.requires_grad:
                    module.weight.uniform_(0.5, 1.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.normal_(0, 0.1)
        if isinstance(model, Fast):
            model.whitening.weight.normal_(0, 0.5)
            model.whitening.bias.normal_(0, 0.1)
    return model


def make_run(
    path: Path,
    name: str = "tutorial",
    size: int = 32,
    channels: int = 3,
    unsure_below: float = 0.0,
    class_names: Sequence[str] = ("cat", "dog", "兔"),
    source: str = "",
    reject_below: float | None = None,
    **changes: Any,
) -> Run:
    """Create a finished run of the model ``name`` in the folder ``path``."""
    recipe = Recipe(model=name, epochs=1, threads=1, **changes)
    mean, std = ((0.4,) * channels, (0.25,) * channels)
    if name == "tutorial":
        mean, std = (0.0,) * channels, (1.0,) * channels
    fit = "stretch" if recipe.fit == "auto" else recipe.fit
    facts = {
        "class_names": list(class_names),
        "preprocessing": Preprocessing(size, size, channels, mean, std, fit).to_dict(),
        "source": {"source": source, "data": None, "coarse": False} if source else {},
        "dataset": {"origin": "made up"},
        "environment": environment.describe(1),
    }
    runfolder.create(path, facts, recipe)
    model = lively(build(name, (size, size, channels), len(class_names), recipe.seed))
    checkpoint.write_tensors(path / runfolder.WEIGHTS, model.state_dict(), {})
    row = dict.fromkeys(HISTORY_COLUMNS[:7], 0.5) | {"epoch": 1}
    runfolder.write_history(path, [row])
    answers = np.eye(len(class_names))[[0, 0, 1, 1]]
    metrics = {"split": "test", **evaluate(answers, [0, 1, 1, 0], class_names).to_dict()}
    if unsure_below:
        runfolder.write_unsure(path, unsure_below)
        metrics["single_view_accuracy"] = 0.25
    if reject_below is not None:
        rule = {"threshold": reject_below, "images": 100, "rejected": 0.05, "accuracy": 0.5}
        metrics["rejection"] = rule
    runfolder.write_metrics(path, metrics)
    runfolder.write_finished(path, True)
    return Run.open(path)


def pictures(count: int, height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return random images, uint8 (count, height, width, channels)."""
    random = np.random.default_rng(height * 1000 + width)
    return random.integers(0, 256, (count, height, width, channels), np.uint8)
