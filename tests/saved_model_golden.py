"""Two SavedModel folders of the tutorial's network, with the logits of the Keras that wrote them.

The tests take the images from this file, and folders and logits from
``golden/saved_model_*.tar.xz``. To regenerate those, run ``python tests/saved_model_golden.py``
twice: in an environment with TensorFlow 2.4.4 (Python 3.8), and in one with a recent TensorFlow and
tf_keras (Keras 2 as of TensorFlow 2.15 and later).

The weights repeat a short pattern, so that the files compress to a few kB.
"""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SHAPE, CLASSES = (24, 22, 1), 3


def pictures():
    """Return four fixed grey images, uint8 (4, 24, 22, 1)."""
    rows, columns = np.mgrid[:24, :22]
    return np.stack(
        [(rows * a + columns * b) % 256 for a, b in ((3, 5), (11, 2), (40, 9), (7, 70))]
    )[..., None].astype(np.uint8)


def pattern(shape, seed, largest):
    """Return float32 values from -largest to largest with a period of 251."""
    steps = (np.arange(np.prod(shape)) * (37 + 2 * seed) + seed) % 251
    return ((steps - 125) / 125 * largest).astype(np.float32).reshape(shape)


def weights(shapes):
    """Return weights of these shapes; gammas and variances are about 1."""
    found = []
    for seed, shape in enumerate(shapes):
        if len(shape) == 1:
            found.append(pattern(shape, seed, 0.1) + (seed < 18 and seed % 6 in (2, 5)))
        else:
            found.append(pattern(shape, seed, 2 / np.sqrt(np.prod(shape[:-1]))))
    return found


def write(name, keras):
    """Save network and logits of this Keras as ``golden/saved_model_NAME.tar.xz``."""
    layers = keras.layers
    model = keras.Sequential()
    for number, filters in enumerate((64, 128, 64)):
        first = {"input_shape": SHAPE} if number == 0 else {}
        model.add(layers.Conv2D(filters, (3, 3), activation="relu", **first))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(32, activation="relu"))
    model.add(layers.Dense(CLASSES))
    model.set_weights(weights([array.shape for array in model.get_weights()]))
    with tempfile.TemporaryDirectory() as folder:
        model.save(str(Path(folder) / "model"), save_format="tf")
        logits = model(pictures().astype(np.float32) / 255, training=False)
        np.save(str(Path(folder) / "logits.npy"), np.asarray(logits))
        shutil.make_archive(str(GOLDEN / ("saved_model_" + name)), "xztar", folder)


if __name__ == "__main__":
    if find_spec("tf_keras"):
        import tf_keras

        write("tf_keras", tf_keras)
    else:
        import tensorflow

        write("tf244", tensorflow.keras)
