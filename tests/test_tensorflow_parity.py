"""Compare training and prediction of Peewit's tutorial with TensorFlow 2.4.4, step by step.

TensorFlow's numbers come from two files: a small golden file in the repository (see
``tensorflow_golden.py``), and a longer trace, whose path is in PEEWIT_TRACE. Both are compared with
Peewit and with ``keras_reference.py``, which computes the same in float64.

Tolerances
----------
Predictions agree to float32 rounding, a few 1e-6 for logits of about 1.

In training, TensorFlow 2.4 sums a batch's statistics sequentially in float32. With the 28,800
values of the first stage, this causes errors of up to 1e-3 in a channel's variance (measured), and
of up to 1e-3 in the activations after it; Peewit sums more accurately and is closer to float64. The
reference, if it sums as TensorFlow does, agrees with TensorFlow's weights after the first step in
all but a few of 159,018 values, and stays close for all five steps (losses within 1e-3, logits
within 0.03). So summation is the only cause of the difference.

Two effects amplify such an error. If it changes the decision of a ReLU or a pooling window, the
gradients of all earlier layers change. And Adam's first step is ``lr * g / (|g| + 3e-6)``, nearly
the full learning rate for any size of gradient, so that a gradient near 0 whose sign changes moves
its weight 2e-3 in the opposite direction. The differences grow with each step, in any
implementation. Therefore, after one step a value may differ by more than a hundredth of Adam's step
only if its gradient is so close to 0 that rounding decides its update (``FirstStep``; no value by
more than two steps, the effect of a changed sign), and after five steps the distance is limited to
a fraction of the change since the start. The errors introduced by the last tests are far outside
these tolerances.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

import tensorflow_golden as golden
from keras_reference import KerasReference, cross_entropy
from peewit.images.preprocessing import Preprocessing
from peewit.models.keras_weights import keras_weights, load_keras_weights
from peewit.models.layers import FlattenHWC
from peewit.models.registry import build
from peewit.training.optimizers.keras_adam import KerasAdam

Weights = list[npt.NDArray[np.float32]]
Data = dict[str, npt.NDArray]
MOVING = [6 * stage + part for stage in range(3) for part in (4, 5)]
TRAINED = [i for i in range(22) if i not in MOVING]
LR = 1e-3
# Adam's first step is LR * g / (|g| + EPSILON)
EPSILON = 1e-7 / np.sqrt(1 - 0.999)
# relative rounding error of a float32 sum of 256 terms, sqrt(256) * 2**-24
ROUNDING, DRAWS = 2.0**-20, 3


class Peewit:
    """Peewit's own network and optimiser behind the interface of the reference."""

    def __init__(self, weights: Weights, shape: tuple[int, int, int] = (32, 32, 3)) -> None:
        self.model = build("tutorial", shape, len(weights[-1]), seed=0)
        load_keras_weights(self.model, weights)
        self.model.dropout.p = 0.0
        channels = shape[2]
        self.rule = Preprocessing(*shape, mean=(0.0,) * channels, std=(1.0,) * channels)
        self.optimizer: torch.optim.Optimizer = KerasAdam(self.model.parameters())

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.model.eval()
        with torch.no_grad():
            return self.model(self.rule.tensor(images)).numpy()

    def train(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
        self.model.train()
        self.optimizer.zero_grad()
        logits, truth = self.model(self.rule.tensor(images)), torch.tensor(labels)
        self.accuracy = float((logits.argmax(1) == truth).double().mean())
        loss = F.cross_entropy(logits, truth)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @property
    def weights(self) -> Weights:
        return [array for _, array in keras_weights(self.model)]

    @property
    def gradients(self) -> dict[int, npt.NDArray[np.float32]]:
        """Gradients by index of the weight, converted to Keras's layout as if they were weights."""
        like = build("tutorial", self.shape, self.model.logits.out_features, seed=0)
        for ours, parameter in zip(like.parameters(), self.model.parameters(), strict=True):
            ours.data = parameter.grad.clone()
        arrays = [array for _, array in keras_weights(like)]
        return {i: arrays[i] for i in TRAINED}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rule.height, self.rule.width, self.rule.channels


# --- the first step -----------------------------------------------------------------------------


class FirstStep:
    """The first step in float64, and the values for which float32 rounding decides the update.

    With a gradient ``g`` that has an error of at most ``d``, Adam's first step changes by at most
    ``EPSILON * d / ((|g| - d + EPSILON) * (|g| + EPSILON))`` of its size, or by its sign if ``|g|``
    is below ``d``. That is more than a hundredth only for small ``|g|``: see ``reach``.

    The errors come from two causes, and each is computed with the reference, for any weights and
    images: the rounding of all other sums, from the reference with slightly different weights; and
    TensorFlow's summation of statistics, from the reference with and without it. The bias of a
    channel that is active everywhere is an example: normalisation cancels it, so that its gradient
    is 0 and the sign of its update is a matter of rounding.
    """

    def __init__(
        self, weights: Weights, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
    ) -> None:
        self.start, self.batch = weights, (images, labels)

    def reference(self, weights: Weights | None = None, **settings: bool) -> KerasReference:
        engine = KerasReference(self.start if weights is None else weights, **settings)
        engine.train(*self.batch)
        return engine

    @cached_property
    def exact(self) -> KerasReference:
        return self.reference()

    @cached_property
    def summed(self) -> KerasReference:
        """The step with TensorFlow's summation."""
        return self.reference(running_sums=True)

    @cached_property
    def rounding(self) -> dict[int, float]:
        """The largest error by rounding in each tensor's gradient, decisions of ReLUs included."""
        random = np.random.default_rng(0)
        largest = dict.fromkeys(TRAINED, 0.0)
        for _ in range(DRAWS):
            noise = [1 + ROUNDING * random.standard_normal(w.shape) for w in self.start]
            near = self.reference([w * n for w, n in zip(self.start, noise, strict=True)])
            for i in TRAINED:
                error = np.abs(near.gradients[i] - self.exact.gradients[i]).max()
                largest[i] = max(largest[i], float(error))
        return largest

    def unexplained(self, ours: Weights, theirs: Weights, sums: bool) -> int:
        """Count the values that differ although rounding cannot change their update.

        ``sums`` says that the statistics were summed differently.
        """
        count = 0
        for i in TRAINED:
            difference = np.abs(ours[i] - theirs[i])
            # Adam's first step is at most the learning rate, so the worst case is the opposite sign
            assert difference.max() < 2.01 * LR
            gradient = self.summed.gradients[i]
            error = self.rounding[i] + sums * 2 * np.abs(gradient - self.exact.gradients[i])
            count += int(((difference > LR / 100) & (np.abs(gradient) > reach(error))).sum())
        return count


def reach(error: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    """Return the largest gradient whose update an error changes by a hundredth of Adam's step.

    It solves ``EPSILON * error / ((g - error + EPSILON) * (g + EPSILON)) = 1 / 100`` for ``g``.
    """
    e = np.asarray(error)
    return (e + np.sqrt(e**2 + 400 * EPSILON * e)) / 2 - EPSILON


def test_reach_is_where_an_error_changes_the_update_by_a_hundredth() -> None:
    for error in (1e-7, 1e-6, 1e-4, 1e-2):
        steps = [g / (abs(g) + EPSILON) for g in (reach(error), reach(error) - error)]
        assert abs(steps[0] - steps[1]) == pytest.approx(0.01, rel=1e-6)


@pytest.fixture(scope="module", params=[1, 2, 3])
def seeded(request: pytest.FixtureRequest) -> FirstStep:
    """The first step from random weights on random pictures."""
    random = np.random.default_rng(request.param)
    images = random.integers(0, 256, (8, 32, 32, 3), np.uint8)
    network = build("tutorial", (32, 32, 3), 10, seed=request.param)
    weights = [array for _, array in keras_weights(network)]
    return FirstStep(weights, images, random.integers(0, 10, 8))


def test_tensorflow_parity_of_the_first_update_with_any_seed(seeded: FirstStep) -> None:
    engine = Peewit(seeded.start)
    engine.train(*seeded.batch)
    assert seeded.unexplained(engine.weights, seeded.summed.weights, sums=True) == 0
    assert seeded.unexplained(engine.weights, seeded.exact.weights, sums=False) == 0


@pytest.mark.parametrize("how", ["adam epsilon", "beta2", "norm epsilon", "flatten", "dropout"])
def test_tensorflow_parity_of_the_first_update_fails_with(seeded: FirstStep, how: str) -> None:
    engine = Peewit(seeded.start)
    _break(engine, how)
    with torch.random.fork_rng(devices=[]):
        engine.train(*seeded.batch)
    assert seeded.unexplained(engine.weights, seeded.summed.weights, sums=True) > 100


# --- the golden file ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=golden.CASES, ids=lambda case: case.name)
def small(request: pytest.FixtureRequest) -> tuple[golden.Case, Data]:
    """A case and TensorFlow's numbers for it."""
    case = request.param
    with np.load(golden.GOLDEN) as file:
        start = f"{case.name}/"
        return case, {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}


def engine_for(kind: str, case: golden.Case) -> Peewit | KerasReference:
    weights = golden.weights(case)
    if kind == "reference":
        return KerasReference(weights)
    engine = Peewit(weights, case.shape)
    if kind == "plain peewit":
        # PyTorch's own layers, which are used if the kernels cannot be compiled
        for stage in engine.model.stages:
            stage.forward = stage.reference
    return engine


def first_step(engine: Peewit | KerasReference, case: golden.Case) -> float:
    images, labels = golden.images(case)
    return engine.train(images[: case.batch], labels[: case.batch])


def gradient_error(engine: Peewit | KerasReference, found: Data) -> float:
    """Return the largest error of a gradient after step 1, relative to the tensor's maximum."""
    ours = [engine.gradients[i] for i in TRAINED]
    return float(np.max(np.abs(golden.samples(ours) - found["step1/gradients"]) / _scale(ours)))


def _scale(arrays: list[npt.NDArray]) -> npt.NDArray:
    return golden.samples([np.full(a.shape, np.abs(a).max()) for a in arrays])


@pytest.mark.parametrize("kind", ["peewit", "plain peewit", "reference"])
def test_tensorflow_parity_of_predictions_with_moving_statistics(
    small: tuple[golden.Case, Data], kind: str
) -> None:
    case, found = small
    logits = engine_for(kind, case).predict(golden.images(case)[0])
    np.testing.assert_allclose(logits, found["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["peewit", "plain peewit", "reference"])
def test_tensorflow_parity_of_the_first_step(small: tuple[golden.Case, Data], kind: str) -> None:
    case, found = small
    engine = engine_for(kind, case)
    assert any(
        (golden.weights(case)[i] < 0).any() for i in (2, 8, 14)
    )  # negative scales are covered
    assert first_step(engine, case) == pytest.approx(found["step1/loss"], abs=2e-5)
    assert gradient_error(engine, found) < 2e-4
    moving = [
        engine.weights[i] if i in MOVING else np.full(w.shape, np.nan)
        for i, w in enumerate(engine.weights)
    ]
    ours = golden.samples(moving)
    theirs = np.where(np.isnan(ours), np.nan, found["step1/weights"])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_tensorflow_parity_of_losses_at_all_steps(small: tuple[golden.Case, Data]) -> None:
    case, found = small
    engine = engine_for("peewit", case)
    images, labels = golden.images(case)
    for step in range(golden.STEPS):
        part = slice(step * case.batch, (step + 1) * case.batch)
        loss = engine.train(images[part], labels[part])
        assert loss == pytest.approx(found[f"step{step + 1}/loss"], abs=2e-5 if step == 0 else 5e-4)


def adam_error(found: Data, start: Weights, make: Callable[..., torch.optim.Optimizer]) -> float:
    """Apply TensorFlow's gradients; return a weight's largest error in units of Adam's step."""
    kept = golden.samples([np.full(w.shape, i in TRAINED) for i, w in enumerate(start)])
    weight = torch.nn.Parameter(torch.tensor(golden.samples(start)[kept]))
    optimizer, errors = make([weight]), []
    for step in range(1, golden.STEPS + 1):
        weight.grad = torch.tensor(found[f"step{step}/gradients"])
        optimizer.step()
        theirs = found[f"step{step}/weights"][kept]
        errors.append(np.abs(weight.detach().numpy() - theirs).max() / LR)
    return float(max(errors))


def test_tensorflow_parity_of_adam_on_the_same_gradients(small: tuple[golden.Case, Data]) -> None:
    # float32 rounds a weight of 1 to 6e-8, three times: 2e-4 of a step of 1e-3
    case, found = small
    assert adam_error(found, golden.weights(case), KerasAdam) < 5e-4


def test_tensorflow_parity_fails_with_pytorchs_position_of_epsilon(
    small: tuple[golden.Case, Data],
) -> None:
    case, found = small

    def pytorch(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=LR, eps=1e-7)

    assert adam_error(found, golden.weights(case), pytorch) > 1e-2


class FlattenCHW(torch.nn.Flatten):
    """Flatten in PyTorch's order, channels first."""


def _break(engine: Peewit, how: str) -> None:
    for module in engine.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            if how == "norm epsilon":
                module.eps = 1e-5
            elif how == "norm momentum":
                module.momentum = 0.1
    parameters = engine.model.parameters()
    if how == "adam epsilon":
        engine.optimizer = torch.optim.Adam(parameters, lr=LR, eps=1e-7)
    elif how == "beta2":
        engine.optimizer = KerasAdam(parameters, betas=(0.9, 0.99))
    if how == "flatten":
        assert isinstance(engine.model.flatten, FlattenHWC)
        engine.model.flatten = FlattenCHW()
    if how == "dropout":
        engine.model.dropout.p = 0.5


@pytest.mark.parametrize("how", ["norm epsilon", "norm momentum", "flatten", "dropout"])
def test_tensorflow_parity_fails_with_a_default_of_pytorch(how: str) -> None:
    case = golden.CASES[0]
    with np.load(golden.GOLDEN) as file:
        found = {k.removeprefix("rgb/"): file[k] for k in file.files}
    engine = engine_for("peewit", case)
    assert isinstance(engine, Peewit)
    _break(engine, how)
    with torch.random.fork_rng(devices=[]):
        first_step(engine, case)
    if how == "norm momentum":
        ours = golden.samples(engine.weights)
        assert np.abs(ours - found["step1/weights"]).max() > 1e-2
    else:
        assert gradient_error(engine, found) > 2e-2


# --- the trace ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced(trace: Path) -> Data:
    with np.load(trace) as file:
        return {name: file[name] for name in file.files}


def weights_of(traced: Data, when: str) -> Weights:
    return [traced[f"{when}/{i:02d}"] for i in range(22)]


def steps_of(traced: Data) -> tuple[list[float], list[float]]:
    """Return the losses and the accuracies of the five steps.

    Keras 2.4 resets its running means after a batch, not before: the first result of
    ``train_on_batch`` still includes the 160 images of the preceding ``evaluate``.
    """
    results = []
    for name, before in zip(("step_loss", "step_accuracy"), traced["evaluate_before"], strict=True):
        first, *others = map(float, traced[name])
        results.append([(192 * first - 160 * float(before)) / 32, *others])
    return results[0], results[1]


def batch_of(traced: Data, step: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    part = slice(32 * step, 32 * (step + 1))
    return traced["images"][part], traced["labels"][part]


def distance(ours: Weights, traced: Data, when: str) -> list[float]:
    """Return each tensor's distance from TensorFlow's, relative to its change in TensorFlow."""
    before, after = weights_of(traced, "before"), weights_of(traced, when)
    return [
        float(np.linalg.norm(o - a) / np.linalg.norm(a.astype(float) - b))
        for o, a, b in zip(ours, after, before, strict=True)
    ]


def farthest(ours: Weights, traced: Data, when: str) -> float:
    """Return the largest difference of a single value from TensorFlow's."""
    pairs = zip(ours, weights_of(traced, when), strict=True)
    return float(max(np.abs(mine - theirs).max() for mine, theirs in pairs))


@pytest.fixture(scope="module")
def first(traced: Data) -> FirstStep:
    return FirstStep(weights_of(traced, "before"), *batch_of(traced, 0))


def test_tensorflow_parity_trace_names(traced: Data) -> None:
    names = [name for name, _ in keras_weights(Peewit(weights_of(traced, "before")).model)]
    assert names == list(traced["names"])


@pytest.mark.parametrize("make", [Peewit, KerasReference])
def test_tensorflow_parity_trace_before(traced: Data, make: type) -> None:
    logits = make(weights_of(traced, "before")).predict(traced["images"])
    np.testing.assert_allclose(logits, traced["logits_before"], rtol=0, atol=2e-5)
    loss, accuracy = traced["evaluate_before"]
    assert cross_entropy(logits, traced["labels"]) == pytest.approx(loss, abs=2e-6)
    assert (logits.argmax(1) == traced["labels"]).mean() == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("when", ["after1", "after5"])
def test_tensorflow_parity_trace_with_tensorflows_own_weights(traced: Data, when: str) -> None:
    """From TensorFlow's own weights, the next results agree to rounding."""
    engine = Peewit(weights_of(traced, when))
    if when == "after5":
        logits = engine.predict(traced["images"])
        np.testing.assert_allclose(logits, traced["logits_after"], rtol=0, atol=2e-5)
    else:
        assert engine.train(*batch_of(traced, 1)) == pytest.approx(steps_of(traced)[0][1], abs=5e-4)


def test_tensorflow_parity_trace_first_step(traced: Data, first: FirstStep) -> None:
    engine = Peewit(weights_of(traced, "before"))
    assert engine.train(*batch_of(traced, 0)) == pytest.approx(steps_of(traced)[0][0], abs=5e-5)
    assert first.unexplained(engine.weights, weights_of(traced, "after1"), sums=True) == 0
    errors = distance(engine.weights, traced, "after1")
    # a hundredth of Bessel's correction for the smallest sample size, 32 x 4 x 4 values
    assert max(errors[i] for i in MOVING) < 2e-4


def test_tensorflow_parity_trace_all_steps(traced: Data) -> None:
    engine = Peewit(weights_of(traced, "before"))
    losses, accuracies = steps_of(traced)
    for step, allowed in enumerate((5e-5, 2e-3, 2e-2, 3e-2, 5e-2)):
        loss = engine.train(*batch_of(traced, step))
        assert loss == pytest.approx(losses[step], abs=allowed)
        assert engine.accuracy == pytest.approx(accuracies[step], abs=1e-6)
    errors = distance(engine.weights, traced, "after5")
    assert max(errors[i] for i in TRAINED) < 0.25
    assert max(errors[i] for i in MOVING) < 0.02
    assert farthest(engine.weights, traced, "after5") < 5 * 2.01 * LR
    logits = engine.predict(traced["images"])
    assert np.sqrt(np.mean((logits - traced["logits_after"]) ** 2)) < 0.1


def test_tensorflow_parity_trace_differences_are_rounding(traced: Data, first: FirstStep) -> None:
    """With TensorFlow's summation the reference agrees; exact, it is farther away."""
    rounded = KerasReference(weights_of(traced, "before"), running_sums=True)
    for step, allowed in enumerate((2e-6, 5e-6, 5e-4, 2e-3, 2e-3)):
        loss = rounded.train(*batch_of(traced, step))
        assert loss == pytest.approx(steps_of(traced)[0][step], abs=allowed)
        if step == 0:
            after = weights_of(traced, "after1")
            assert first.unexplained(rounded.weights, after, sums=False) == 0
    errors = distance(rounded.weights, traced, "after5")
    assert max(errors[i] for i in TRAINED) < 0.05
    assert max(errors[i] for i in MOVING) < 2e-3
    logits = rounded.predict(traced["images"])
    assert np.abs(logits - traced["logits_after"]).max() < 0.05
    near = distance(first.summed.weights, traced, "after1")
    far = distance(first.exact.weights, traced, "after1")
    assert max(far[i] for i in MOVING) > 2 * max(near[i] for i in MOVING)


@pytest.mark.parametrize("how", ["norm epsilon", "norm momentum", "flatten", "dropout"])
def test_tensorflow_parity_trace_fails_with_a_default_of_pytorch(traced: Data, how: str) -> None:
    engine = Peewit(weights_of(traced, "before"))
    _break(engine, how)
    with torch.random.fork_rng(devices=[]):
        engine.train(*batch_of(traced, 0))
    errors = distance(engine.weights, traced, "after1")
    assert max(errors[i] for i in TRAINED) > 0.5 or max(errors[i] for i in MOVING) > 0.5
