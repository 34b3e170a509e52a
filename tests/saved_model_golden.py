"""Two SavedModel folders of the tutorial's network, and what the Keras that wrote them answered.

The tests take the pictures from here, and folders and answers from ``golden/saved_model_*.tar.xz``.
To write those again, run this file where TensorFlow 2.4.4 is installed (Python 3.8), and again
where a present TensorFlow and tf_keras are (Keras 2 as of TensorFlow 2.15 and later):
``python tests/saved_model_golden.py``.

The weights repeat a short pattern, so that the files are a few kB.
"""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SHAPE, CLASSES = (24, 22, 1), 3


def pictures():
    """Return four grey pictures, uint8 (4, 24, 22, 1), the same everywhere."""
    rows, columns = np.mgrid[:24, :22]
    return np.stack(
        [(rows * a + columns * b) % 256 for a, b in ((3, 5), (11, 2), (40, 9), (7, 70))]
    )[..., None].astype(np.uint8)


def pattern(shape, seed, largest):
    """Return float32 values from -largest to largest that repeat after 251."""
    steps = (np.arange(np.prod(shape)) * (37 + 2 * seed) + seed) % 251
    return ((steps - 125) / 125 * largest).astype(np.float32).reshape(shape)


def weights(shapes):
    """Return weights of these shapes; scales and variances are about 1."""
    found = []
    for seed, shape in enumerate(shapes):
        if len(shape) == 1:
            found.append(pattern(shape, seed, 0.1) + (seed < 18 and seed % 6 in (2, 5)))
        else:
            found.append(pattern(shape, seed, 2 / np.sqrt(np.prod(shape[:-1]))))
    return found


def write(name, keras):
    """Save the network by this Keras, with its answers, as ``golden/saved_model_NAME.tar.xz``."""
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
    with tempfile.TemporaryDirectory() as place:
        model.save(str(Path(place) / "model"), save_format="tf")
        answers = model(pictures().astype(np.float32) / 255, training=False)
        np.save(str(Path(place) / "logits.npy"), np.asarray(answers))
        shutil.make_archive(str(GOLDEN / ("saved_model_" + name)), "xztar", place)


if __name__ == "__main__":
    if find_spec("tf_keras"):
        import tf_keras

        write("tf_keras", tf_keras)
    else:
        import tensorflow

        write("tf244", tensorflow.keras)
