"""A training's whole state in one file: weights, optimiser, random numbers, position."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.system.files import cannot_read, check_format, damaged, replacing
from peewit.training.sampler import HardExamples

# raised with every change after which older versions would misread the file
FORMAT = 1
Row = dict[str, float]


@dataclass
class Position:
    """How far a training is.

    Parameters
    ----------
    epoch : int
        Finished epochs; at the end also one that the time did not suffice to finish.
    step : int
        Finished steps of the epoch after those. After the last step of an epoch and before its
        validation this is the number of steps.
    images, correct : int
        Images in the steps since the last row of the history, and how many of them were
        classified right.
    loss_sum : float
        The sum of their losses.
    seconds : float
        The time those steps took.
    spent : float
        Seconds since the training began, all sittings together, with validation and saving.
    seen : int
        Images in all steps.
    flops : int
        Operations in all steps.
    share : float
        How much of the training was done, 0 to 1, when the last step began; 1 at the end.
    validated : float
        How much of it was done at the last row of the history.
    history : list of dict
        One row each time that it was validated: after each epoch, or after several short ones.
    rounds : list of [seconds, accuracy]
        What was done of a training until an accuracy is reached, before the present round.
    round_began : float
        What had been spent when that began.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    correct: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    spent: float = 0.0
    seen: int = 0
    flops: int = 0
    share: float = 0.0
    validated: float = 0.0
    history: list[Row] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    round_began: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss since the last row so far, as Keras reports it."""
        return self.loss_sum / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """Share of the images since the last row that were classified right."""
        return self.correct / max(self.images, 1)

    @property
    def images_per_second(self) -> float:
        """Images a second since the last row."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def flops_per_second(self) -> float:
        """Operations a second since the last row."""
        before = self.history[-1].get("flops", 0) if self.history else 0
        return (self.flops - before) / max(self.seconds, 1e-9)

    @property
    def begun(self) -> int:
        """Epochs that have begun."""
        return self.epoch + (self.step > 0)

    def next_row(self, row: Row, share: float) -> None:
        """Note what was validated when ``share`` of the training was done."""
        self.history.append(row)
        self.validated = share
        self.images = self.correct = 0
        self.loss_sum = self.seconds = 0.0

    def next_epoch(self) -> None:
        """Stand at the start of the next epoch."""
        self.epoch += 1
        self.step = 0


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    hard: HardExamples | None = None,
) -> None:
    """Write everything that going on needs, PyTorch's random state included, to ``path``.

    Raises
    ------
    PeewitError
        The file cannot be written; the one before it is still there.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if hard:
        tensors["hard/losses"] = torch.from_numpy(hard.losses)
        tensors["hard/kept"] = torch.from_numpy(hard.kept)
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}  # what the optimiser keeps that is no tensor
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    facts = {
        "format": FORMAT,
        "position": asdict(position),
        "optimizer": {"param_groups": state["param_groups"], "state": plain},
    }
    write_tensors(path, tensors, {"peewit": json.dumps(facts)})


def load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    hard: HardExamples | None = None,
) -> Position:
    """Put back everything that ``save`` wrote, PyTorch's random state included.

    Returns
    -------
    Position
        Where the training stood.

    Raises
    ------
    PeewitError
        The file is missing, cut, of a newer version, or of another model.
    """
    tensors, metadata = read_tensors(path)
    try:
        facts = _facts(path, metadata)
        position = Position(**facts["position"])
        state = {int(index): dict(values) for index, values in facts["optimizer"]["state"].items()}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/", 2)
                like = parameters[int(index)]
                state.setdefault(int(index), {})[name] = _in_memory_order_of(like, tensor)
        groups = facts["optimizer"]["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        load_weights(path, model, tensors, "model/")
        torch.set_rng_state(tensors["random"])
        if hard:
            hard.losses[:] = tensors["hard/losses"].numpy()
            hard.kept[:] = tensors["hard/kept"].numpy()
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _foreign(path) from error
    return position


def read_position(path: Path) -> Position:
    """Return where the training stood when ``path`` was saved; see ``load``."""
    try:
        with _opened(path) as file:
            return Position(**_facts(path, file.metadata())["position"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path) from error


def load_weights(
    path: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str = ""
) -> None:
    """Copy those of ``tensors`` (read from ``path``) that begin with ``prefix`` into ``model``.

    Raises
    ------
    PeewitError
        They are not this model's.
    """
    chosen = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        model.load_state_dict(chosen)
    except RuntimeError as error:
        raise PeewitError(
            f"cannot use the weights in {path}", "they do not fit the model of this run"
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file, whole or not at all."""
    # not safetensors' own save_file: it hides the reason (disk full) in an error of its own
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: the tensors and the metadata.

    Raises
    ------
    PeewitError
        The file is missing, cut or something else.
    """
    with _opened(path) as file:
        # cloned, because they are views of a mapped file, and Windows refuses to replace that
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise PeewitError(f"there is no {path}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    except safetensors.SafetensorError as error:
        raise damaged(path, "it is cut or damaged") from error


def _facts(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((metadata or {})["peewit"])
    check_format(path, facts["format"], FORMAT)
    return facts


def _foreign(path: Path) -> PeewitError:
    return PeewitError(
        f"cannot go on from {path}", "it is not a checkpoint of this training", "train anew"
    )


def _in_memory_order_of(like: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    # The optimiser works through memory in order; in another order its vectorised and its scalar
    # code would meet other elements, and those two need not round alike.
    if tensor.shape != like.shape:
        return tensor
    return torch.empty_like(like).copy_(tensor)
