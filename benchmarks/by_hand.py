"""What a user writes around an exported network without Peewit: read, resize, scale, run.

Nothing here imports Peewit. Each function takes the folder in which ``inference.py`` has put the
network in every form (``network.onnx``, ``network.pt2``, ``network.keras``, ``facts.json``), and
returns a function from prepared pictures, float32 (N, H, W, C), to logits, (N, classes).
"""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image


class Rule:
    """Size and scale of the network's input, by hand."""

    def __init__(self, folder):
        facts = json.loads((Path(folder) / "facts.json").read_text(encoding="utf-8"))
        self.size = (facts["width"], facts["height"])
        self.mode = "RGB" if facts["channels"] == 3 else "L"
        self.mean = np.array(facts["mean"], np.float32)
        self.std = np.array(facts["std"], np.float32)
        self.class_names = facts["class_names"]

    def read(self, path):
        """Return the pixels of a picture file in the network's size, uint8 (H, W, C)."""
        with Image.open(path) as picture:
            small = picture.convert(self.mode).resize(self.size, Image.Resampling.BILINEAR)
            return np.asarray(small).reshape(self.size[1], self.size[0], -1)

    def scaled(self, images):
        """Return what the network reads: uint8 -> float32, both (N, H, W, C)."""
        return (images.astype(np.float32) / 255 - self.mean) / self.std


def probabilities(logits):
    """Return each class's probability, (N, classes) -> (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def channels_first(x):
    """Return (N, H, W, C) as (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def pytorch(folder):
    """Return the network in PyTorch, as its own ``torch.export`` keeps it."""
    import torch

    network = torch.export.load(Path(folder) / "network.pt2").module()

    def forward(x):
        with torch.inference_mode():
            return network(torch.from_numpy(channels_first(x))).numpy()

    return forward


def onnx_runtime(folder):
    """Return the network in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(Path(folder) / "network.onnx")
    return lambda x: session.run(None, {"input": channels_first(x)})[0]


def openvino(folder):
    """Return the network in OpenVINO, in float32 like the others."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(Path(folder) / "network.onnx", "CPU", settings)
    return lambda x: model(channels_first(x))[0]


def openvino_as_it_comes(folder):
    """Return the network in OpenVINO's own precision: bfloat16 where the processor has it."""
    import openvino

    model = openvino.compile_model(Path(folder) / "network.onnx", "CPU")
    return lambda x: model(channels_first(x))[0]


def keras(folder):
    """Return Keras's ``predict``, in batches of as many pictures as there are, up to 256."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.models.load_model(Path(folder) / "network.keras", compile=False)
    return lambda x: model.predict(x, batch_size=256, verbose=0)


ENGINES = {
    "PyTorch": pytorch,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "OpenVINO as it comes": openvino_as_it_comes,
    "Keras predict": keras,
}
