"""Muon for the filters of convolutions, and Nesterov's momentum for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

# The quintic a*x + b*x**3 + c*x**5 that brings singular values near 1 in few steps [1].
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each step changes all directions of a filter bank equally [1]_.

    The gradient, with Nesterov's momentum, of a convolution's filters is taken as a matrix (a row
    a filter) and brought near the orthogonal matrix nearest to it, by Newton-Schulz iteration.
    Before that the filters are scaled to the norm ``sqrt(number of filters)``, so that the rate
    means the same at each step; a batch normalisation after them undoes the scale.

    Parameters
    ----------
    filters : iterable of tensor
        What to train so: float32, at least 2 dimensions, the first of which is the filters.
    lr : float
        The rate.
    momentum : float
        How much of itself the sum of gradients keeps at each step.
    steps : int
        Of the Newton-Schulz iteration.
    others : iterable of dict, optional
        More groups of parameters, such as biases, with their own ``lr``, ``momentum`` and
        ``weight_decay``. They get plain steps of momentum, as ``torch.optim.SGD`` with
        ``nesterov=True`` makes.

    References
    ----------
    .. [1] K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
       https://kellerjordan.github.io/posts/muon/

    Examples
    --------
    >>> filters = torch.nn.Parameter(torch.eye(2).reshape(2, 2, 1, 1))
    >>> optimizer = Muon([filters], lr=0.1, momentum=0.0, steps=10)
    >>> filters.grad = torch.tensor([[0.0, 5.0], [0.0, 0.0]]).reshape(2, 2, 1, 1)
    >>> optimizer.step()
    >>> round(filters[0, 1].item(), 1)
    -0.1
    """

    def __init__(
        self,
        filters: Iterable[torch.Tensor],
        lr: float = 0.24,
        momentum: float = 0.6,
        steps: int = 3,
        others: Iterable[dict[str, Any]] = (),
    ) -> None:
        usual = {"lr": lr, "momentum": momentum, "steps": steps, "weight_decay": 0.0}
        plain = [{**group, "steps": 0} for group in others]
        super().__init__([{"params": list(filters)}, *plain], usual)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters once, by their gradients; those that have none stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            momentum, rate = group["momentum"], group["lr"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                total = state["momentum"].mul_(momentum).add_(gradient)
                update = gradient.add(total, alpha=momentum)  # Nesterov's look ahead
                if group["steps"]:
                    parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
                    update = _orthogonalised(update, group["steps"])
                parameter.add_(update, alpha=-rate)
        return loss


def newton_schulz(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Return, nearly, the orthogonal matrix nearest to ``matrix``, by ``steps`` of a quintic.

    After 3 steps from a usual gradient the singular values lie between about 0.3 and 1.2, which is
    as good for training as 1 [1]_.

    Parameters
    ----------
    matrix : float32 tensor, shape (rows, columns)

    Returns
    -------
    float32 tensor, shape (rows, columns)

    References
    ----------
    .. [1] K. Jordan et al., "Muon", 2024, https://kellerjordan.github.io/posts/muon/

    Examples
    --------
    >>> newton_schulz(torch.diag(torch.tensor([3.0, 1.0])), steps=5).diagonal().round(decimals=1)
    tensor([0.8000, 1.1000])
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:  # the smaller square is the cheaper one
        x = x.T
    # Each step multiplies x by a polynomial of x @ x.T, and those commute: so all steps are made on
    # the small squares, and x is read twice instead of twice a step. For 256 filters of 2,304
    # values that is less than half of three steps' multiplications.
    square = x @ x.T
    whole = torch.eye(len(x))
    for step in range(steps):
        factor = _B * square + _C * (square @ square)
        factor.diagonal().add_(_A)
        whole = factor @ whole if step else factor
        if step + 1 < steps:
            square = factor @ square @ factor
    x = whole @ x
    result: torch.Tensor = x.T if tall else x
    return result


def _orthogonalised(update: torch.Tensor, steps: int) -> torch.Tensor:
    # (O, I, H, W) -> (O, H * W * I): in channels_last memory only a view; the order of the columns
    # does not matter to the iteration
    rows = update.permute(0, *range(2, update.ndim), 1)
    flat = newton_schulz(rows.reshape(len(update), -1), steps)
    return flat.view(rows.shape).permute(0, update.ndim - 1, *range(1, update.ndim - 1))
