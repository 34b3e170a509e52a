"""Inference code a user would write by hand for an exported network: read, resize, scale, run.

Nothing here imports Peewit. Each engine's function takes the folder with the files that
``inference.py`` has written (``network.onnx``, ``network.pt2``, ``network.keras``, ``facts.json``)
and returns a function from preprocessed images, float32 (N, H, W, C), to logits, (N, classes).
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image


class Preprocessing:
    """Size and scale of the network's input."""

    def __init__(self, folder):
        facts = json.loads((Path(folder) / "facts.json").read_text(encoding="utf-8"))
        self.size = (facts["width"], facts["height"])
        self.mode = "RGB" if facts["channels"] == 3 else "L"
        self.mean = np.array(facts["mean"], np.float32)
        self.std = np.array(facts["std"], np.float32)
        self.class_names = facts["class_names"]

    def read(self, path):
        """Read an image file and resize it to the network's input: uint8 (H, W, C)."""
        with Image.open(path) as picture:
            small = picture.convert(self.mode).resize(self.size, Image.Resampling.BILINEAR)
            return np.asarray(small).reshape(self.size[1], self.size[0], -1)

    def scaled(self, images):
        """Normalise images: uint8 -> float32, both (N, H, W, C)."""
        return (images.astype(np.float32) / 255 - self.mean) / self.std


def probabilities(logits):
    """Return the softmax of ``logits``, (N, classes) -> (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def channels_first(x):
    """Transpose (N, H, W, C) to (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def pytorch(folder):
    """Load the ``torch.export`` file in PyTorch."""
    import torch

    network = torch.export.load(Path(folder) / "network.pt2").module()

    def forward(x):
        with torch.inference_mode():
            return network(torch.from_numpy(channels_first(x))).numpy()

    return forward


def onnx_runtime(folder):
    """Load the ONNX file in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(Path(folder) / "network.onnx")
    return lambda x: session.run(None, {"input": channels_first(x)})[0]


def openvino(folder):
    """Load the ONNX file in OpenVINO, in float32 like the other engines."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(Path(folder) / "network.onnx", "CPU", settings)
    return lambda x: model(channels_first(x))[0]


def openvino_default(folder):
    """Load the ONNX file in OpenVINO's default precision: bfloat16 if the processor supports it."""
    import openvino

    model = openvino.compile_model(Path(folder) / "network.onnx", "CPU")
    return lambda x: model(channels_first(x))[0]


def keras(folder):
    """Load the Keras file; return ``predict`` with batches of up to 256 images."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.models.load_model(Path(folder) / "network.keras", compile=False)
    return lambda x: model.predict(x, batch_size=256, verbose=0)


ENGINES = {
    "PyTorch": pytorch,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "OpenVINO by default": openvino_default,
    "Keras predict": keras,
}
