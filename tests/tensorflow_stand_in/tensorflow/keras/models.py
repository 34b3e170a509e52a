"""A Sequential model that is the tutorial's network, and checks that its layers are added."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from peewit.evaluation.metrics import evaluate
from peewit.export.keras import LayerNames, keras_file, network_layers
from peewit.export.operations import operations_of
from peewit.models.registry import build

RELU = {"activation": "relu"}
STAGE_END = [("BatchNormalization", (), {}), ("MaxPooling2D", ((2, 2),), {})]
TUTORIAL = [
    ("Conv2D", (64, (3, 3)), {**RELU, "input_shape": (32, 32, 3)}),
    *STAGE_END,
    ("Conv2D", (128, (3, 3)), RELU),
    *STAGE_END,
    ("Conv2D", (64, (3, 3)), RELU),
    *STAGE_END,
    ("Flatten", (), {}),
    ("Dropout", (0.5,), {}),
    ("Dense", (32,), RELU),
    ("Dense", (10,), {}),
]


class Sequential:
    def __init__(self):
        self.layers = []
        self.network = build("tutorial", (32, 32, 3), classes=10, seed=0).eval()

    def add(self, layer):
        self.layers.append(layer)

    def summary(self):
        assert self.layers == TUTORIAL
        print("Total params: 159,018")

    def compile(self, *, optimizer, loss, metrics):
        assert (optimizer, loss, metrics) == ("adam", ("loss", True), ["accuracy"])

    def fit(self, images, labels, *, epochs, validation_data, verbose):
        _check(images, labels)
        _check(*validation_data)
        row = self.evaluate(*validation_data, verbose=0)
        names = ("val_loss", "val_accuracy", "loss", "accuracy")
        history = {name: [value] * epochs for name, value in zip(names, row * 2, strict=True)}
        return SimpleNamespace(history=history)

    def evaluate(self, images, labels, *, verbose):
        _check(images, labels)
        result = evaluate(self.predict(images, verbose=0), labels[:, 0], list("0123456789"))
        return result.loss, result.accuracy

    def predict(self, images, *, verbose):
        with torch.inference_mode():
            pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
            return self.network(pixels.contiguous(memory_format=torch.channels_last)).numpy()

    def save(self, path):
        layers = network_layers(operations_of(self.network), LayerNames())
        Path(path).write_bytes(keras_file(layers, [32, 32, 3], {}))


def _check(images, labels):
    assert images.dtype == np.float64
    assert images.shape[1:] == (32, 32, 3)
    assert images.max() <= 1
    assert labels.shape == (len(images), 1)
