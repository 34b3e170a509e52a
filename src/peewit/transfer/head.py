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
ITERATIONS, GRADIENT = 200, 1e-4
# Principal components with a smaller share of the largest one's variance are left out
NEGLIGIBLE = 1e-6
# Of the loss at a probability of 0.9: p * (1 - p)
CURVATURE = 0.09


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
    chosen = np.arange(len(dataset))
    if len(dataset) > CHOSEN_WITH:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:CHOSEN_WITH])
    losses = _cross_validate(features[chosen], dataset.take(chosen), weights, seed)
    best = min(losses, key=lambda strength: losses[strength], default=USUAL)
    fit = _Fit(features, dataset, weights)
    for strength in STRENGTHS[: STRENGTHS.index(best) + 1]:
        fit.with_strength(strength)
    return Head(*fit.layer(), best, losses)


def _cross_validate(
    features: Floats, dataset: Dataset, weights: torch.Tensor | None, seed: int
) -> dict[float, float]:
    """Return the mean cross-entropy of held-out images by strength."""
    usual = np.median(dataset.class_counts[dataset.class_counts > 0])
    if usual < 2:
        return {}
    folds = dataset.folds(min(FOLDS, int(usual)), seed)
    labels = torch.tensor(dataset.labels)
    parts = [folds == number for number in range(int(folds.max()) + 1)]
    fits = [_Fit(features[~held], dataset.take(~held), weights) for held in parts]
    losses: dict[float, float] = {}
    for strength in STRENGTHS:
        total = 0.0
        for held, fit in zip(parts, fits, strict=True):
            fit.with_strength(strength)
            weight, bias = fit.layer()
            logits = torch.from_numpy(features[held]) @ weight.T + bias
            total += F.cross_entropy(logits, labels[held], reduction="sum").item()
        losses[strength] = total / len(dataset)
        if len(losses) > WORSE and min(list(losses.values())[-WORSE:]) > min(losses.values()):
            break
    return losses


class _Fit:
    """Logistic regression on standardised features, for one strength after the other.

    It is computed in the basis of the principal components, each scaled so that the curvature of
    the loss is similar in all directions: L-BFGS then takes about a tenth of the iterations. The
    penalty does not change, because the basis is orthonormal.

    Parameters
    ----------
    features : float32 array, shape (N, features)
    dataset : Dataset
    weights : float32 tensor, shape (classes,), optional
    """

    def __init__(
        self, features: Floats, dataset: Dataset, weights: torch.Tensor | None = None
    ) -> None:
        x = torch.from_numpy(features)
        self.mean, self.scale = x.mean(0), x.std(0, correction=0)
        self.scale[self.scale < 1e-6] = 1.0
        x = (x - self.mean) / self.scale
        if len(x) < x.shape[1]:
            energy, left = torch.linalg.eigh(x @ x.T)
            kept = energy > NEGLIGIBLE * energy[-1]
            self.energy = energy[kept]
            self.basis = x.T @ (left[:, kept] / self.energy.sqrt())  # (features, r)
        else:
            energy, basis = torch.linalg.eigh(x.T @ x)
            kept = energy > NEGLIGIBLE * energy[-1]
            self.energy, self.basis = energy[kept], basis[:, kept]
        self.x = x @ self.basis  # (N, r)
        self.labels = torch.tensor(dataset.labels)
        self.each = None if weights is None else weights[self.labels]
        # of the principal components, and the biases in the last column
        self.fitted = torch.zeros(len(dataset.class_names), self.x.shape[1] + 1)

    def layer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight and the bias for features as they are."""
        weight = (self.fitted[:, :-1] @ self.basis.T) / self.scale
        return weight, self.fitted[:, -1] - weight @ self.mean

    def with_strength(self, strength: float) -> None:
        """Fit, starting from the last result."""
        count = len(self.x)
        decay = 1 / (strength * count)
        stretch = torch.cat((torch.sqrt(CURVATURE * self.energy / count + decay), torch.ones(1)))
        scaled = self.fitted * stretch
        optimizer = torch.optim.LBFGS(
            [scaled],
            max_iter=ITERATIONS,
            tolerance_grad=GRADIENT,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> torch.Tensor:
            """Compute the loss, and its gradient by hand: twice as fast as autograd."""
            fitted = scaled / stretch
            weight = fitted[:, :-1]
            log_probabilities = F.log_softmax(self.x @ weight.T + fitted[:, -1], 1)
            error = log_probabilities.exp()
            error[torch.arange(count), self.labels] -= 1
            losses = F.nll_loss(log_probabilities, self.labels, reduction="none")
            if self.each is not None:
                error, losses = error * self.each[:, None], losses * self.each
            gradient = torch.cat(
                (error.T @ self.x / count + decay * weight, error.mean(0)[:, None]), 1
            )
            scaled.grad = gradient / stretch
            return losses.mean() + decay * (weight * weight).sum() / 2

        with torch.no_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.fitted = scaled / stretch
