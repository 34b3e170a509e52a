"""The linear layer on the features: logistic regression, its strength by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from peewit.data.dataset import Dataset
from peewit.system.text import counted

Floats = npt.NDArray[np.float32]

# Variances of the prior of the weights of standardised features, from strong to weak
# regularisation: scikit-learn's C. Each fit starts from the one before.
STRENGTHS = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
USUAL = 0.1  # where there are too few pictures to choose it
WORSE = 2  # strengths in a row after which the weaker ones are not tried
FOLDS = 5
# Pictures that the strength is chosen with: more hardly change it
CHOSEN_WITH = 10_000
ITERATIONS, GRADIENT = 200, 1e-5


@dataclass(frozen=True)
class Head:
    """A linear layer fitted to features.

    Parameters
    ----------
    weight : float32 tensor, shape (classes, features)
    bias : float32 tensor, shape (classes,)
    strength : float
        The chosen one of ``STRENGTHS``.
    losses : dict
        The mean cross-entropy of the cross-validation by strength; empty without it.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    losses: dict[float, float]

    def sentence(self) -> str:
        """Return the choice in a sentence."""
        tried = counted(len(self.losses), "strength")
        return f"regularisation C = {self.strength:g}, the best of {tried} in a cross-validation"


def fit_head(
    features: Floats, dataset: Dataset, weights: torch.Tensor | None = None, seed: int = 0
) -> Head:
    """Fit multinomial logistic regression with L2 regularisation to features.

    The features are standardised, which the returned layer includes. The strength is the one with
    the lowest cross-entropy in a cross-validation over ``dataset.folds``, which keep groups whole.

    Parameters
    ----------
    features : float32 array, shape (N, features)
    dataset : Dataset
        The images that they are of.
    weights : float32 tensor, shape (classes,), optional
        Weight of each class in the loss.
    seed : int
        Of the folds.
    """
    classes = len(dataset.class_names)
    chosen = np.arange(len(dataset))
    if len(dataset) > CHOSEN_WITH:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:CHOSEN_WITH])
    some = dataset.take(chosen)
    losses = _cross_validate(features[chosen], some, weights, seed)
    best = min(losses, key=lambda strength: losses[strength], default=USUAL)
    x, mean, scale = _standardised(features)
    labels = torch.tensor(dataset.labels)
    fitted: torch.Tensor | None = None
    for strength in STRENGTHS[: STRENGTHS.index(best) + 1]:
        fitted = _fit(x, labels, classes, strength, weights, fitted)
    assert fitted is not None
    weight, bias = fitted[:, :-1] / scale, fitted[:, -1]
    return Head(weight, bias - weight @ mean, best, losses)


def _cross_validate(
    features: Floats, dataset: Dataset, weights: torch.Tensor | None, seed: int
) -> dict[float, float]:
    """Return the mean cross-entropy of held-out images by strength."""
    usual = np.median(dataset.class_counts[dataset.class_counts > 0])
    if usual < 2:
        return {}
    folds = dataset.folds(min(FOLDS, int(usual)), seed)
    labels = torch.tensor(dataset.labels)
    fitted: dict[int, torch.Tensor] = {}
    losses: dict[float, float] = {}
    for strength in STRENGTHS:
        total = 0.0
        for number in range(int(folds.max()) + 1):
            held = folds == number
            x, mean, scale = _standardised(features[~held])
            fitted[number] = _fit(
                *(x, labels[~held], len(dataset.class_names), strength),
                *(weights, fitted.get(number)),
            )
            judged = (torch.from_numpy(features[held]) - mean) / scale
            logits = judged @ fitted[number][:, :-1].T + fitted[number][:, -1]
            total += F.cross_entropy(logits, labels[held], reduction="sum").item()
        losses[strength] = total / len(dataset)
        if len(losses) > WORSE and min(list(losses.values())[-WORSE:]) > min(losses.values()):
            break
    return losses


def _standardised(features: Floats) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the features with mean 0 and standard deviation 1, their means and deviations."""
    x = torch.from_numpy(features)
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale[scale < 1e-6] = 1.0
    return (x - mean) / scale, mean, scale


def _fit(
    x: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    strength: float,
    weights: torch.Tensor | None,
    start: torch.Tensor | None,
) -> torch.Tensor:
    """Return weights and, in the last column, biases: float32, (classes, features + 1)."""
    count, width = x.shape
    fitted = torch.zeros(classes, width + 1) if start is None else start.clone()
    each = None if weights is None else weights[labels]
    optimizer = torch.optim.LBFGS(
        [fitted],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        """Compute the loss, and its gradient by hand: twice as fast as autograd."""
        log_probabilities = F.log_softmax(x @ fitted[:, :-1].T + fitted[:, -1], 1)
        error = log_probabilities.exp()
        error[torch.arange(count), labels] -= 1
        losses = F.nll_loss(log_probabilities, labels, reduction="none")
        if each is not None:
            error, losses = error * each[:, None], losses * each
        decay = fitted[:, :-1] / (strength * count)
        gradient = torch.cat((error.T @ x / count + decay, error.mean(0)[:, None]), 1)
        fitted.grad = gradient
        return losses.mean() + (fitted[:, :-1] * decay).sum() / 2

    with torch.no_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return fitted
