"""Optimisers in the exact forms that the recipes name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class KerasAdam(torch.optim.Adam):
    """Adam as Keras 2 writes it, which differs from PyTorch's in where epsilon stands.

    With m and v the moving averages of the gradient and of its square, t the number of the step,
    and ``rate = lr * sqrt(1 - beta2**t) / (1 - beta1**t)``, Keras does [1]_::

        p -= rate * m / (sqrt(v) + eps)

    and PyTorch ``p -= rate * m / (sqrt(v) + eps * sqrt(1 - beta2**t))``. So PyTorch's fused
    kernel gives Keras's steps when it is handed ``eps / sqrt(1 - beta2**t)`` at each one.

    Parameters
    ----------
    params : iterable of tensor, or of dict
        What to train, as for ``torch.optim.Adam``. All of it is expected to have a gradient at
        each step.
    lr : float
        The rate.
    betas : tuple of float
        How much of themselves the averages of the gradient and of its square keep.
    eps : float
        Keras's epsilon.

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980,
       the paragraph before section 2.1 ("epsilon hat").

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = KerasAdam([weight], lr=0.1)
    >>> weight.grad = torch.tensor([2.0])
    >>> optimizer.step()
    >>> round(weight.item(), 6)
    0.9
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        for group in self.param_groups:
            group["keras_eps"] = group["eps"]
            group["steps"] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters once by their gradients."""
        for group in self.param_groups:
            group["steps"] += 1
            group["eps"] = group["keras_eps"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        return super().step(closure)
