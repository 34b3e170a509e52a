"""The optimisers by name. Building one imports PyTorch; listing them does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peewit.models.registry import PRETRAINED

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peewit.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class OptimizerInfo:
    """Metadata of an optimiser, available without building it.

    Parameters
    ----------
    title : str
        Its name in reports.
    default_lr : float or None
        The learning rate; None if it follows from the number of steps.
    families : frozenset of str or None
        The model families that it can train (``ModelInfo.family``); None for all.
    full_batches : bool
        Whether an epoch's last, smaller batch is left out, and small data sets get small batches.
    make : callable
        ``make(model, recipe)`` returns the optimiser for all trainable parameters of the model. The
        recipe has a learning rate.
    """

    title: str
    default_lr: float | None
    families: frozenset[str] | None = None
    full_batches: bool = False
    make: Callable[[nn.Module, Recipe], torch.optim.Optimizer]

    def suits(self, family: str) -> bool:
        """Return whether it can train models of ``family``."""
        return self.families is None or family in self.families


def _adam(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    from peewit.training.optimizers.keras_adam import KerasAdam

    assert recipe.lr is not None
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return KerasAdam(trained, lr=recipe.lr)


def _muon(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    from peewit.training.optimizers.muon import for_fast_network

    assert recipe.lr is not None
    return for_fast_network(model, recipe.lr, recipe.batch_size)


def _adamw(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    from peewit.training.optimizers.layerwise import for_pretrained_network

    assert recipe.lr is not None
    return for_pretrained_network(model, recipe.lr)


OPTIMIZERS: dict[str, OptimizerInfo] = {
    "adam": OptimizerInfo(title="Adam", default_lr=1e-3, make=_adam),  # Keras's rate
    "adamw": OptimizerInfo(
        title="AdamW",
        default_lr=3e-4,
        families=frozenset({PRETRAINED}),
        make=_adamw,
    ),
    "muon": OptimizerInfo(
        title="Muon",
        default_lr=None,
        families=frozenset({"fast"}),
        full_batches=True,
        make=_muon,
    ),
}


def default_optimizer(family: str) -> str:
    """Return the name of the optimiser for models of ``family``: the most specific one.

    >>> default_optimizer("fast"), default_optimizer("")
    ('muon', 'adam')
    """
    suited = [name for name, info in OPTIMIZERS.items() if info.suits(family)]
    return min(suited, key=lambda name: OPTIMIZERS[name].families is None)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for all trainable parameters of ``model``.

    With a decaying learning rate, each parameter group stores its initial one as ``first_lr``.
    """
    optimizer = OPTIMIZERS[recipe.optimizer].make(model, recipe)
    if recipe.schedule == "linear":
        for group in optimizer.param_groups:
            group["first_lr"] = group["lr"]
    return optimizer
