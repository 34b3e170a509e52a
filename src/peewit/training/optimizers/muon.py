"""Muon for the filters of convolutions, and Nesterov momentum for all other parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from peewit.training.schedules import WHITENING_FRACTION

# airbench94's with Muon (kellerjordan.github.io/posts/muon). The last two are for the sum of the
# batch's losses; its head has unit deviation and is divided by 256, ours is divided by 9, so the
# same rate has (9 / 256) ** 2 the effect. If Muon's rate changes, they change in proportion.
MUON_RATE, BIAS_RATE, HEAD_RATE = 0.24, 0.053, 0.67 * (9 / 256) ** 2
# per image of the batch, divided by the rate, so that rate times decay is the same for all
WEIGHT_DECAY = 2e-6

# The quintic a*x + b*x**3 + c*x**5 that brings singular values near 1 in few steps [1].
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum: each step changes all directions of a filter bank equally [1]_.

    The gradient of a convolution's filters, with Nesterov momentum, is reshaped to a matrix (one
    row per filter) and approximately orthogonalised by Newton-Schulz iteration. Before that the
    filters are scaled to the norm ``sqrt(number of filters)``, so that the rate means the same in
    each step; the batch normalisation that follows them undoes the scale.

    Parameters
    ----------
    filters : iterable of tensor
        The parameters to orthogonalise: float32, at least 2 dimensions, filters first.
    lr : float
        The learning rate.
    momentum : float
        The decay of the accumulated gradient per step.
    steps : int
        Newton-Schulz iterations.
    others : iterable of dict, optional
        Other parameter groups, such as biases, with their own ``lr``, ``momentum`` and
        ``weight_decay``. They are updated as by ``torch.optim.SGD`` with ``nesterov=True``.

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
        """Update the parameters by their gradients; those without a gradient stay the same."""
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
                update = gradient.add(total, alpha=momentum)  # Nesterov momentum
                if group["steps"]:
                    parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
                    update = _orthogonalised(update, group["steps"])
                parameter.add_(update, alpha=-rate)
        return loss


def for_fast_network(model: nn.Module, lr: float, batch_size: int) -> Muon:
    """Return Muon for a network of the fast family: filters, whitening bias, biases and head.

    Parameters
    ----------
    model : torch.nn.Module
        With ``whitening.bias`` and ``head.weight``.
    lr : float
        Of the filters; the other rates change in proportion.
    batch_size : int
        The other rates are for the sum of a batch's losses, and the loop has the mean.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scale = lr / MUON_RATE
    filters = [parameter for parameter in trained.values() if parameter.ndim == 4]
    whitening, head = trained.pop("whitening.bias"), trained.pop("head.weight")
    biases = [parameter for parameter in trained.values() if parameter.ndim == 1]

    def group(parameters: list[nn.Parameter], rate: float, **more: float) -> dict[str, Any]:
        rate *= batch_size
        decay = WEIGHT_DECAY * batch_size / rate
        settings = {"lr": rate * scale, "momentum": 0.85, "weight_decay": decay}
        return {"params": parameters, **settings, **more}

    others = [
        group([whitening], BIAS_RATE, until=WHITENING_FRACTION),
        group(biases, BIAS_RATE),
        group([head], HEAD_RATE),
    ]
    return Muon(filters, lr=lr, others=others)


def newton_schulz(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Return approximately the orthogonal matrix nearest to ``matrix``.

    After 3 iterations from a typical gradient the singular values lie between about 0.3 and 1.2,
    which trains as well as 1 [1]_.

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
    if tall:  # the smaller of the two squares is cheaper
        x = x.T
    # Each iteration multiplies x by a polynomial of x @ x.T, and these commute: so all iterations
    # use the small squares, and x is read twice in all instead of twice per iteration. For 256
    # filters of 2,304 values that is less than half the multiplications of three iterations.
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
    # (O, I, H, W) -> (O, H * W * I): a view in channels_last memory; the order of the columns does
    # not matter
    rows = update.permute(0, *range(2, update.ndim), 1)
    flat = newton_schulz(rows.reshape(len(update), -1), steps)
    return flat.view(rows.shape).permute(0, update.ndim - 1, *range(1, update.ndim - 1))
