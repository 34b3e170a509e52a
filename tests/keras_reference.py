"""The tutorial's network as Keras computes it: a slow, readable reference in NumPy and float64.

It shares no code with Peewit; the parity tests compare both with TensorFlow's own numbers. In
float64, rounding errors are a billion times smaller than TensorFlow's, so the difference between
the reference and TensorFlow's numbers is TensorFlow's own rounding error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Array = npt.NDArray[np.float64]
STAGES = 3
PER_STAGE = 6  # kernel, bias, gamma, beta, moving mean, moving variance
MOMENTUM, NORM_EPSILON = 0.99, 1e-3
RATE, BETA1, BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-7


class KerasReference:
    """The network, its optimiser and their state.

    Parameters
    ----------
    weights : sequence of array
        As returned by Keras's ``model.get_weights()``: kernels (H, W, in, out), dense (in, out).
    running_sums : bool
        Sum the batch statistics as TensorFlow 2.4 does, in float32, one value after another.
    """

    def __init__(self, weights: list[npt.NDArray[np.float32]], running_sums: bool = False) -> None:
        self.total = running_total if running_sums else exact_total
        self.weights: list[Array] = [np.array(w, np.float64) for w in weights]
        moving = {PER_STAGE * stage + part for stage in range(STAGES) for part in (4, 5)}
        self.trained = [i for i in range(len(weights)) if i not in moving]
        self.steps = 0
        self.averages = {i: (np.zeros(weights[i].shape),) * 2 for i in self.trained}
        self.gradients: dict[int, Array] = {}
        self.margin = np.inf  # how close any ReLU or pooling decision was

    def predict(self, images: npt.NDArray[np.uint8]) -> Array:
        """Return the logits (N, classes), computed with the moving statistics."""
        parts = [
            self._forward(images[i : i + 32], training=False) for i in range(0, len(images), 32)
        ]
        return np.concatenate([logits for logits, _ in parts])

    def train(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
        """Take one Adam step on a batch (dropout rate 0); return the loss before the step."""
        logits, saved = self._forward(images, training=True)
        probabilities = softmax(logits)
        rows = np.arange(len(labels))
        loss = -np.log(probabilities[rows, labels]).mean()
        probabilities[rows, labels] -= 1
        self._backward(probabilities / len(labels), saved)
        self._adam()
        return float(loss)

    def _forward(
        self, images: npt.NDArray[np.uint8], training: bool
    ) -> tuple[Array, list[tuple[Array, ...]]]:
        x = images / 255
        saved: list[tuple[Array, ...]] = []  # each layer's activations for the backward pass
        for stage in range(STAGES):
            first = PER_STAGE * stage
            kernel, bias, gamma, beta, moving_mean, moving_variance = self.weights[
                first : first + PER_STAGE
            ]
            before = convolve(x, kernel) + bias
            active = np.maximum(before, 0)
            if training:
                count = active.size // active.shape[-1]
                mean = self.total(active) / count
                variance = self.total((active - mean) ** 2) / count
                # TensorFlow's fused kernel updates the moving variance with the unbiased variance
                for at, batch in ((4, mean), (5, variance * count / (count - 1))):
                    moved = MOMENTUM * self.weights[first + at] + (1 - MOMENTUM) * batch
                    self.weights[first + at] = moved
            else:
                mean, variance = moving_mean, moving_variance
            deviation = np.sqrt(variance + NORM_EPSILON)
            normal = (active - mean) / deviation
            windows = pool_windows(normal * gamma + beta)  # (N, h, w, 4, C)
            self._note_margin(before, windows)
            saved.append((x, before, normal, deviation, windows))
            x = windows.max(3)
        flat = x.reshape(len(x), -1)  # height, width, channels
        hidden_kernel, hidden_bias, kernel, bias = self.weights[PER_STAGE * STAGES :]
        before = flat @ hidden_kernel + hidden_bias
        hidden = np.maximum(before, 0)
        saved.append((flat, before, hidden, np.array(x.shape, np.float64)))
        return hidden @ kernel + bias, saved

    def _backward(self, d_logits: Array, saved: list[tuple[Array, ...]]) -> None:
        gradients = self.gradients = {}
        last = PER_STAGE * STAGES
        flat, before, hidden, shape = saved.pop()
        gradients[last + 2], gradients[last + 3] = hidden.T @ d_logits, d_logits.sum(0)
        d_hidden = (d_logits @ self.weights[last + 2].T) * (before > 0)
        gradients[last], gradients[last + 1] = flat.T @ d_hidden, d_hidden.sum(0)
        dx = (d_hidden @ self.weights[last].T).reshape(shape.astype(int))
        for stage in reversed(range(STAGES)):
            first = PER_STAGE * stage
            x, before, normal, deviation, windows = saved.pop()
            gamma = self.weights[first + 2]
            dy = unpool(dx, windows, normal.shape)
            gradients[first + 2], gradients[first + 3] = self.total(dy * normal), self.total(dy)
            count = dy.size // dy.shape[-1]
            # the batch mean and variance depend on every value: S. Ioffe and C. Szegedy, "Batch
            # normalization", ICML 2015, section 3
            d_active = (gamma / deviation) * (
                dy - gradients[first + 3] / count - normal * gradients[first + 2] / count
            )
            d_before = d_active * (before > 0)
            gradients[first + 1] = self.total(d_before)
            gradients[first] = np.einsum("nhwcij,nhwo->ijco", patches(x), d_before, optimize=True)
            spread = np.pad(d_before, ((0, 0), (2, 2), (2, 2), (0, 0)))
            turned = self.weights[first][::-1, ::-1].transpose(0, 1, 3, 2)
            dx = convolve(spread, turned)

    def _adam(self) -> None:
        self.steps += 1
        rate = RATE * np.sqrt(1 - BETA2**self.steps) / (1 - BETA1**self.steps)
        for i in self.trained:
            gradient = self.gradients[i]
            mean, square = self.averages[i]
            mean = BETA1 * mean + (1 - BETA1) * gradient
            square = BETA2 * square + (1 - BETA2) * gradient**2
            self.averages[i] = mean, square
            self.weights[i] = self.weights[i] - rate * mean / (np.sqrt(square) + ADAM_EPSILON)

    def _note_margin(self, before: Array, windows: Array) -> None:
        largest, second = np.sort(windows, axis=3)[..., [-1, -2], :].transpose(3, 0, 1, 2, 4)
        # ties come from places where ReLU returned 0, through which no gradient flows
        gaps = (largest - second)[largest > second]
        self.margin = min(self.margin, float(np.abs(before).min()), float(gaps.min()))


def exact_total(x: Array) -> Array:
    """Return the sum of each channel, (N, H, W, C) -> (C,)."""
    return x.sum((0, 1, 2))


def running_total(x: Array) -> Array:
    """Return the sum of each channel as TensorFlow 2.4 does: sequentially in float32."""
    return np.cumsum(x.reshape(-1, x.shape[-1]), 0, dtype=np.float32)[-1].astype(np.float64)


def patches(x: Array) -> Array:
    """Return a view of the 3x3 patches: (N, H, W, C) -> (N, H - 2, W - 2, C, 3, 3)."""
    return sliding_window_view(x, (3, 3), axis=(1, 2))


def convolve(x: Array, kernel: Array) -> Array:
    """Return a 3x3 convolution without padding; kernel (3, 3, in, out)."""
    return np.einsum("nhwcij,ijco->nhwo", patches(x), kernel, optimize=True)


def pool_windows(x: Array) -> Array:
    """Return the 2x2 windows, row by row: (N, H, W, C) -> (N, H // 2, W // 2, 4, C)."""
    n, height, width, channels = x.shape
    h, w = height // 2, width // 2
    cut = x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, 4, channels)


def unpool(dx: Array, windows: Array, shape: tuple[int, ...]) -> Array:
    """Route each window's gradient to its first maximum; zeros elsewhere."""
    n, h, w, _, channels = windows.shape
    spread = np.zeros_like(windows)
    np.put_along_axis(spread, windows.argmax(3, keepdims=True), dx[:, :, :, None], 3)
    result = np.zeros(shape)
    cut = spread.reshape(n, h, w, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    result[:, : 2 * h, : 2 * w] = cut.reshape(n, 2 * h, 2 * w, channels)
    return result


def softmax(logits: Array) -> Array:
    """Return the probabilities, (N, classes)."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def cross_entropy(logits: Array, labels: npt.NDArray[np.int64]) -> float:
    """Return the mean loss."""
    return float(-np.log(softmax(logits)[np.arange(len(labels)), labels]).mean())
