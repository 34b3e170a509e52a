"""Checkpoints: weights, optimiser, random state and progress of training in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.system.files import cannot_read, check_format, damaged, replacing
from peewit.training.sampler import HardExamples
from peewit.training.state import TrainState

# incremented with every change that older versions would misread
FORMAT = 1


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_state: TrainState,
    hard_examples: HardExamples | None = None,
) -> None:
    """Write everything that resuming needs to ``path``, including PyTorch's random state.

    Raises
    ------
    PeewitError
        The file cannot be written; the previous one is still there.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if hard_examples:
        tensors["hard/losses"] = torch.from_numpy(hard_examples.losses)
        tensors["hard/kept"] = torch.from_numpy(hard_examples.kept)
    state = optimizer.state_dict()
    plain: dict[str, dict[str, Any]] = {}  # the optimiser's values that are not tensors
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    facts = {
        "format": FORMAT,
        "position": train_state.to_dict(),
        "optimizer": {"param_groups": state["param_groups"], "state": plain},
    }
    write_tensors(path, tensors, {"peewit": json.dumps(facts)})


def load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    hard_examples: HardExamples | None = None,
) -> TrainState:
    """Restore everything that ``save`` wrote, including PyTorch's random state.

    Returns
    -------
    TrainState

    Raises
    ------
    PeewitError
        The file is missing, truncated, of a newer version, or of another model.
    """
    tensors, metadata = read_tensors(path)
    try:
        facts = _facts(path, metadata)
        train_state = TrainState.from_dict(facts["position"])
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
        if hard_examples:
            hard_examples.losses[:] = tensors["hard/losses"].numpy()
            hard_examples.kept[:] = tensors["hard/kept"].numpy()
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _foreign(path) from error
    return train_state


def read_state(path: Path) -> TrainState:
    """Return only the state of the training in the checkpoint ``path``; see ``load``."""
    try:
        with _opened(path) as file:
            return TrainState.from_dict(_facts(path, file.metadata())["position"])
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path) from error


def load_weights(
    path: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str = ""
) -> None:
    """Load the ``tensors`` (read from ``path``) whose names begin with ``prefix`` into ``model``.

    Raises
    ------
    PeewitError
        They belong to another model.
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
    # not with safetensors' save_file, whose own error hides the reason (disk full)
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, metadata)
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises
    ------
    PeewitError
        The file is missing, truncated or not a safetensors file.
    """
    with _opened(path) as file:
        # cloned, because they are views of a memory-mapped file, which Windows cannot replace
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
        raise damaged(path, "it is truncated or damaged") from error


def _facts(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((metadata or {})["peewit"])
    check_format(path, facts["format"], FORMAT)
    return facts


def _foreign(path: Path) -> PeewitError:
    return PeewitError(
        f"cannot resume from {path}",
        "it is not a checkpoint of this training",
        "start a new training",
    )


def _in_memory_order_of(like: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    # The optimiser works through memory in order. In another order its vectorised and its scalar
    # code would process other elements, and the two may round differently.
    if tensor.shape != like.shape:
        return tensor
    return torch.empty_like(like).copy_(tensor)
