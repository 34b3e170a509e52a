"""Train the tutorial in TensorFlow, one epoch or all, with exactly the tutorial's code.

usage: python keras_tutorial.py FOLDER [EPOCHS]     (TensorFlow 2.4 or newer)

FOLDER contains images.npy (N, 32, 32, 3) uint8 and labels.npy (N,) int64. The last line of output
is a JSON object: the epoch's images per second, peak memory in MiB, versions. With EPOCHS (10 in
the tutorial), FOLDER also contains test_images.npy and test_labels.npy; each epoch is validated on
them and the final model tested, as in the tutorial.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from memory import peak_memory
from tensorflow.keras import layers, models

folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
labels = np.load(folder / "labels.npy")
images = images / 255.0  # float64, as in the tutorial

model = models.Sequential()
model.add(layers.Conv2D(64, (3, 3), activation="relu", input_shape=(32, 32, 3)))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(128, (3, 3), activation="relu"))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.add(layers.BatchNormalization())
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Flatten())
model.add(layers.Dropout(0.5))
model.add(layers.Dense(32, activation="relu"))
model.add(layers.Dense(10))
model.compile(
    optimizer="adam",
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)


def one_epoch():
    # warm up: building the graph takes seconds
    model.fit(images[:320], labels[:320], verbose=0)
    began = time.perf_counter()
    history = model.fit(images, labels, verbose=0).history
    seconds = time.perf_counter() - began
    return {"images_per_second": len(images) / seconds, "loss": history["loss"][-1]}


def whole(epochs):
    test = np.load(folder / "test_images.npy") / 255.0, np.load(folder / "test_labels.npy")
    began = time.perf_counter()
    history = model.fit(images, labels, epochs=epochs, validation_data=test, verbose=0).history
    seconds = time.perf_counter() - began
    loss, accuracy = model.evaluate(*test, verbose=0)
    return {
        "seconds": seconds,
        "accuracy": accuracy,
        "loss": loss,
        "history": {name: [float(value) for value in values] for name, values in history.items()},
    }


found = whole(int(sys.argv[2])) if len(sys.argv) > 2 else one_epoch()
print(
    json.dumps(
        {
            **found,
            "peak_memory_mib": peak_memory(),
            "tensorflow": tf.__version__,
            "keras": getattr(tf.keras, "__version__", None) or tf.keras.version(),
            "python": sys.version.split()[0],
        }
    )
)
