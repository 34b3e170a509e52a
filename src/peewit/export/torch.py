"""PyTorch's own portable form, ``.pt2``: a graph that runs without Peewit."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from peewit.export.agreement import Answers
from peewit.export.chain import (
    Conv,
    Dense,
    Dropout,
    Flatten,
    GeluTanh,
    GlobalMax,
    MaxPool,
    Norm,
    Operation,
    Relu,
    RepeatEdge,
    Scale,
)
from peewit.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from peewit.export.job import Content

SUFFIXES = (".pt2",)
NOTE = ""
METADATA = "peewit.json"


def write(content: Content, stem: Path) -> list[Path]:
    """Write ``stem.pt2``; ``torch.export.load`` reads it, and pickles nothing."""
    file = stem.with_name(stem.name + SUFFIXES[0])
    network: nn.Module = Plain(content.operations)
    rule = content.preprocessing
    batch = torch.export.Dim("N")
    if content.raw:
        example: torch.Tensor = torch.zeros(2, rule.channels, rule.height, rule.width)
        dynamic: dict[int, Any] = {0: batch}
    else:
        network = Whole(network, rule)
        example = torch.zeros(2, 50, 60, rule.channels, dtype=torch.uint8)
        dynamic = {0: batch, 1: torch.export.Dim("H"), 2: torch.export.Dim("W")}
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=(dynamic,))
    torch.export.save(program, file, extra_files={METADATA: json.dumps(content.metadata)})
    return [file]


def answers(content: Content, file: Path) -> Answers:
    """Load the file as PyTorch does."""
    # this process has just written it
    module = torch.export.load(file).module()

    def forward(pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        given = torch.from_numpy(np.ascontiguousarray(pictures))
        with torch.no_grad():
            result = module(given.permute(0, 3, 1, 2).contiguous() if content.raw else given)
        values: npt.NDArray[np.float32] = result.numpy()
        return values

    return content.answers(forward)


class Plain(nn.Module):
    """A chain of operations by PyTorch's own functions, for (N, C, H, W)."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        super().__init__()
        self.operations = [part for part in operations if not isinstance(part, Dropout)]
        for index, operation in enumerate(self.operations):
            for name, value in vars(operation).items():
                if isinstance(value, np.ndarray):
                    self.register_buffer(f"{name}_{index}", torch.from_numpy(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for index, operation in enumerate(self.operations):
            x = self._step(x, operation, index)
        return x

    def _step(self, x: torch.Tensor, operation: Operation, index: int) -> torch.Tensor:
        def own(name: str) -> Any:
            return getattr(self, f"{name}_{index}", None)

        match operation:
            case Conv(padding=padding):
                return F.conv2d(x, own("weight"), own("bias"), padding=padding)
            case Norm(epsilon=epsilon):
                statistics = own("mean"), own("variance"), own("gamma"), own("beta")
                return F.batch_norm(x, *statistics, eps=epsilon)
            case Dense():
                return F.linear(x, own("weight"), own("bias"))
            case Relu():
                return F.relu(x)
            case GeluTanh():
                return F.gelu(x, approximate="tanh")
            case MaxPool(size=size):
                return F.max_pool2d(x, size)
            case GlobalMax():
                return x.amax((2, 3))
            case RepeatEdge():
                return F.pad(x, (0, 1, 0, 1), mode="replicate")
            case Flatten():
                return x.permute(0, 2, 3, 1).flatten(1)
            case Scale(by=by):
                return x * by
        return x


class Whole(nn.Module):
    """What ``Preprocessing.tensor`` does, then the network, then probabilities."""

    def __init__(self, network: nn.Module, rule: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.rule = rule

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return probabilities of uint8 pictures (N, H, W, C)."""
        rule, shape = self.rule, (1, -1, 1, 1)
        x = pictures.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (rule.height, rule.width), mode="bilinear", antialias=True)
        x = (x / 255 - torch.tensor(rule.mean).view(shape)) / torch.tensor(rule.std).view(shape)
        return torch.softmax(self.network(x), 1)
