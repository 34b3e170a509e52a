"""Two small cases of the tutorial's network, computed by TensorFlow 2.4.4.

The tests take the inputs from this file and TensorFlow's numbers from
``golden/tutorial_tf244.npz``. To regenerate that file, run ``python tests/tensorflow_golden.py`` in
an environment with TensorFlow 2.4.4 (Python 3.8).

The inputs are generated with integer arithmetic, so that they are identical on every machine, bit
for bit. Some scales (gamma) are negative, which reverses the order of the values in a pooling
window. The seeds are chosen so that in the first step no ReLU and no pooling decision is closer
than 5e-6; otherwise rounding alone could change a gradient.

Large tensors are sampled at regular intervals.
"""

from collections import namedtuple
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "tutorial_tf244.npz"
SAMPLE = 61  # maximum number of values per tensor
STEPS = 3

Case = namedtuple("Case", "name shape classes batch seed")
# unequal sides reveal a wrong order of the flattened features; the second case has grey images,
# a last pooling that drops a row, and another number of classes
CASES = (
    Case("rgb", (32, 40, 3), 10, 3, 18),
    Case("grey", (24, 31, 1), 3, 5, 20),
)


def random(shape, seed):
    """Return float64 values from -1 to 1, by integer arithmetic (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(41)).astype(np.float64) / 2**22 - 1).reshape(shape)


def images(case):
    """Return images, uint8 (STEPS * batch, H, W, C), and labels, int64."""
    shape = (STEPS * case.batch, *case.shape)
    pixels = (random(shape, 100 * case.seed) + 1) * 127.5
    labels = (np.arange(len(pixels)) * 7 + 1) % case.classes
    return pixels.astype(np.uint8), labels.astype(np.int64)


def weights(case):
    """Return the initial weights, float32, in Keras's order and layout."""
    height, width, channels = case.shape
    for _ in range(3):
        height, width = (height - 2) // 2, (width - 2) // 2
    shapes = []
    for inputs, outputs in ((channels, 64), (64, 128), (128, 64)):
        shapes += [(3, 3, inputs, outputs)] + [(outputs,)] * 5
    shapes += [(height * width * 64, 32), (32,), (32, case.classes), (case.classes,)]
    values = []
    for i, shape in enumerate(shapes):
        value = random(shape, 100 * case.seed + i + 1)
        part = i % 6 if i < 18 else (i - 18) % 2
        if part == 0:  # kernel, scaled to preserve the size of the activations
            value *= 2 / np.prod(shape[:-1]) ** 0.5
        elif i < 18 and part == 2:  # gamma: 0.5 to 1.5, a third of them negative
            value = (1 + value / 2) * np.where(np.arange(len(value)) % 3, 1, -1)
        elif i < 18 and part == 5:  # moving variance
            value = 1 + value / 2
        else:
            value *= 0.3
        values.append(value.astype(np.float32))
    return values


def samples(arrays):
    """Return the sampled values of these tensors, concatenated."""
    flat = [np.ravel(array) for array in arrays]
    return np.concatenate([f[:: max(1, len(f) // SAMPLE)][:SAMPLE] for f in flat])


def main():
    """Write the golden file with TensorFlow."""
    import tensorflow as tf
    from tensorflow.keras import layers

    assert tf.__version__ == "2.4.4", tf.__version__
    found = {}
    for case in CASES:
        pixels, labels = images(case)
        model = tf.keras.Sequential([layers.InputLayer(case.shape)])
        for width in (64, 128, 64):
            model.add(layers.Conv2D(width, 3, activation="relu"))
            model.add(layers.BatchNormalization())
            model.add(layers.MaxPooling2D(2))
        model.add(layers.Flatten())
        model.add(layers.Dense(32, activation="relu"))
        model.add(layers.Dense(case.classes))
        model.set_weights(weights(case))
        optimizer = tf.keras.optimizers.Adam()
        loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x = (pixels / 255).astype(np.float32)
        found[case.name + "/logits"] = model(x, training=False).numpy()
        for step in range(STEPS):
            part = slice(step * case.batch, (step + 1) * case.batch)
            with tf.GradientTape() as tape:
                logits = model(x[part], training=True)
                loss = loss_of(labels[part], logits)
            gradients = tape.gradient(loss, model.trainable_weights)
            pairs = zip(gradients, model.trainable_weights)  # noqa: B905 (Python 3.8 has no strict)
            optimizer.apply_gradients(pairs)
            start = f"{case.name}/step{step + 1}/"
            found[start + "logits"] = logits.numpy()
            found[start + "loss"] = loss.numpy()
            # one array for all tensors: each array in an npz file costs as much as 60 values
            found[start + "gradients"] = samples([gradient.numpy() for gradient in gradients])
            found[start + "weights"] = samples(model.get_weights())
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(str(GOLDEN), **found)


if __name__ == "__main__":
    main()
