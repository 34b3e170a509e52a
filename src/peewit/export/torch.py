"""PyTorch's portable format, ``.pt2`` by ``torch.export``: it runs without Peewit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from peewit.export.agreement import Predictor
from peewit.export.operations import (
    Conv,
    Dense,
    Dropout,
    Flatten,
    GeluTanh,
    GlobalMax,
    GlobalMean,
    MaxPool,
    Norm,
    Operation,
    Relu,
    Relu6,
    RepeatEdge,
    Residual,
    Scale,
    refuse_encoder,
)
from peewit.images.preprocessing import (
    ConvertChannels,
    CropToAspect,
    Divide,
    PadToAspect,
    Preprocessing,
    Resize,
    Subtract,
)

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".pt2",)
NOTE = ""
METADATA = "peewit.json"
# of the sizes of an image that are only known at run time; PyTorch leaves them without types
sym_max: Callable[[Any, Any], Any] = torch.sym_max
sym_min: Callable[[Any, Any], Any] = torch.sym_min


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.pt2``, which ``torch.export.load`` reads; it contains no pickle."""
    refuse_encoder(content.operations, "PyTorch")
    file = stem.with_name(stem.name + SUFFIXES[0])
    network: nn.Module = PlainNetwork(content.operations)
    rule = content.preprocessing
    batch = torch.export.Dim("N")
    if content.raw:
        example: torch.Tensor = torch.zeros(2, rule.channels, rule.height, rule.width)
        dynamic: dict[int, Any] = {0: batch}
    else:
        network = nn.Sequential(PreprocessingModule(rule), network, nn.Softmax(1))
        example = torch.zeros(2, 50, 60, rule.channels, dtype=torch.uint8)
        dynamic = {0: batch, 1: torch.export.Dim("H"), 2: torch.export.Dim("W")}
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=(dynamic,))
    torch.export.save(program, file, extra_files={METADATA: json.dumps(content.metadata)})
    return [file]


def load(content: Content, file: Path) -> Predictor:
    """Load the file with PyTorch."""
    # safe to load: this process has just written it
    module = torch.export.load(file).module()

    def forward(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        x = torch.from_numpy(np.ascontiguousarray(images))
        with torch.no_grad():
            result = module(x.permute(0, 3, 1, 2).contiguous() if content.raw else x)
        values: npt.NDArray[np.float32] = result.numpy()
        return values

    return content.predictor(forward)


class PreprocessingModule(nn.Module):
    """The steps of a preprocessing in operations that ``torch.export`` can trace."""

    def __init__(self, rule: Preprocessing) -> None:
        super().__init__()
        self.steps = rule.steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Prepare uint8 images (N, H, W, channels): float32 (N, channels, height, width)."""
        x = images.permute(0, 3, 1, 2).float()
        for step in self.steps:
            match step:
                case ConvertChannels():
                    pass  # a traced program accepts only the network's own number of channels
                case CropToAspect(height=height, width=width):
                    rows, columns = (
                        _crop_weights(x.shape[axis], suiting, target)
                        for (axis, suiting), target in zip(
                            _suiting(x, height, width), (height, width), strict=True
                        )
                    )
                    x = rows @ x @ columns.T  # has the size to which Resize would resize it
                case PadToAspect(height=height, width=width, value=value):
                    pads: list[Any] = []
                    for axis, suiting in _suiting(x, height, width):
                        padding = sym_max(0, suiting - x.shape[axis]) // 2
                        pads = [padding, padding, *pads]
                    x = F.pad(x, pads, value=value)
                case Resize(height=height, width=width):
                    x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
                case Subtract(values=values):
                    x = x - torch.tensor(values).view(1, -1, 1, 1)
                case Divide(values=values):
                    x = x / torch.tensor(values).view(1, -1, 1, 1)
        return x


def _suiting(x: torch.Tensor, height: int, width: int) -> list[tuple[int, Any]]:
    """Return for both axes of ``x`` the size that suits the other at the given aspect ratio.

    As in ``peewit.images.fitting``, whose ``min`` and ``max`` would decide when the program is
    traced whether it is for wide or for tall images.
    """
    return [(2, x.shape[3] * height // width), (3, x.shape[2] * width // height)]


def _crop_weights(size: Any, suiting: Any, target: int) -> torch.Tensor:
    """Return ``resize_weights`` of the pixels of a crop, 0 for the others: (target, size).

    If the image were cropped, the program would be only for crops of at least 2 x 2 pixels.
    """
    kept = sym_max(1, sym_min(size, suiting))
    scale = torch.full((), kept, dtype=torch.float32) / target
    places = torch.arange(size) - (size - kept) // 2 + 0.5
    centres = (torch.arange(target) + 0.5)[:, None] * scale
    triangle = (1 - (places - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    triangle = triangle * ((places > 0) & (places < kept))
    weights: torch.Tensor = triangle / triangle.sum(1, keepdim=True)
    return weights


class PlainNetwork(nn.Module):
    """A list of operations in PyTorch's own functions: (N, C, H, W) -> logits."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        super().__init__()
        self.operations = [step for step in operations if not isinstance(step, Dropout)]
        for index, operation in enumerate(self.operations):
            for name, value in vars(operation).items():
                if isinstance(value, np.ndarray):
                    self.register_buffer(f"{name}_{index}", torch.from_numpy(value))
            if isinstance(operation, Residual):
                self.add_module(f"inner_{index}", PlainNetwork(operation.operations))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for index, operation in enumerate(self.operations):
            x = self._step(x, operation, index)
        return x

    def _step(self, x: torch.Tensor, operation: Operation, index: int) -> torch.Tensor:
        def buffer(name: str) -> Any:
            return getattr(self, f"{name}_{index}", None)

        match operation:
            case Conv(padding=padding, stride=stride, groups=groups):
                if padding == "same":
                    top, left, bottom, right = operation.pads(x.shape[2], x.shape[3])
                    x, padding = F.pad(x, (left, right, top, bottom)), 0
                weights = buffer("weight"), buffer("bias")
                return F.conv2d(x, *weights, padding=padding, stride=stride, groups=groups)
            case Residual():
                inner: torch.Tensor = self.get_submodule(f"inner_{index}")(x)
                return x + inner
            case Norm(epsilon=epsilon):
                statistics = buffer("mean"), buffer("variance"), buffer("gamma"), buffer("beta")
                return F.batch_norm(x, *statistics, eps=epsilon)
            case Dense():
                return F.linear(x, buffer("weight"), buffer("bias"))
            case Relu():
                return F.relu(x)
            case Relu6():
                return F.relu6(x)
            case GeluTanh():
                return F.gelu(x, approximate="tanh")
            case MaxPool(size=size):
                return F.max_pool2d(x, size)
            case GlobalMax():
                return x.amax((2, 3))
            case GlobalMean():
                return x.mean((2, 3))
            case RepeatEdge():
                return F.pad(x, (0, 1, 0, 1), mode="replicate")
            case Flatten():
                return x.permute(0, 2, 3, 1).flatten(1)
            case Scale(by=by):
                return x * by
        return x
