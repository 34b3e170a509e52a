"""Checkpoints: weights, optimiser, random state and progress of training in one file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import safetensors
import safetensors.torch
import torch
from torch import nn

from peewit.errors import PeewitError
from peewit.system.files import cannot_read, check_format, damaged, replacing
from peewit.system.validation import validated
from peewit.training.sampler import HardExamples
from peewit.training.state import TrainState

# incremented with every change that older versions would misread
FORMAT = 1
# the key of the checksum in a file's metadata; files of version 0.1.0 have none
CHECKSUM = "sha256"


class _OptimizerInFile(TypedDict):
    param_groups: list[dict[str, Any]]
    state: dict[str, dict[str, int | float | bool | None]]


class _Facts(TypedDict):
    position: dict[str, Any]
    optimizer: _OptimizerInFile


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
    facts = _facts(path, metadata)
    train_state = TrainState.from_dict(path, facts["position"])
    groups = facts["optimizer"]["param_groups"]
    if not _alike(groups, optimizer.state_dict()["param_groups"]):
        raise damaged(path, "the settings of its optimizer are not those of this training")
    try:
        state: dict[int, dict[str, Any]] = {
            int(index): dict(values) for index, values in facts["optimizer"]["state"].items()
        }
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/", 2)
                like = parameters[int(index)]
                if tensor.shape not in (like.shape, ()) or tensor.dtype != like.dtype:
                    raise _foreign(path)
                state.setdefault(int(index), {})[name] = _in_memory_order_of(like, tensor)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        load_weights(path, model, tensors, "model/")
        torch.set_rng_state(tensors["random"])
        if hard_examples:
            for name, array in (("losses", hard_examples.losses), ("kept", hard_examples.kept)):
                stored = tensors[f"hard/{name}"].numpy()
                if (stored.shape, stored.dtype) != (array.shape, array.dtype):
                    raise _foreign(path)
                array[:] = stored
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _foreign(path) from error
    return train_state


def read_state(path: Path) -> TrainState:
    """Return only the state of the training in the checkpoint ``path``; see ``load``."""
    with _opened(path) as file:
        metadata = file.metadata()
    return TrainState.from_dict(path, _facts(path, metadata)["position"])


def load_weights(
    path: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str = ""
) -> None:
    """Load the ``tensors`` (read from ``path``) whose names begin with ``prefix`` into ``model``.

    Raises
    ------
    PeewitError
        They belong to another model, or are not finite.
    """
    chosen = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    # PyTorch converts other types without a word
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    try:
        if any(tensor.dtype != types[name] for name, tensor in chosen.items()):
            raise RuntimeError("another number format")
        model.load_state_dict(chosen)
    except (KeyError, RuntimeError) as error:
        raise PeewitError(
            f"cannot use the weights in {path}", "they do not fit the model of this run"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in chosen.values()):
        raise damaged(path, "a weight is not a finite number")


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file with a checksum of its content, whole or not at all."""
    # not with safetensors' save_file, whose own error hides the reason (disk full)
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    # inside the file: in another one it would be wrong if the process was killed between the two
    content = safetensors.torch.save(plain, {**metadata, CHECKSUM: _checksum(plain, metadata)})
    with replacing(path) as partial:
        partial.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises
    ------
    PeewitError
        The file is missing, truncated or not a safetensors file, or its content is not that of
        its checksum.
    """
    with _opened(path) as file:
        # cloned, because they are views of a memory-mapped file, which Windows cannot replace
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata: dict[str, str] = file.metadata() or {}
    if CHECKSUM in metadata and metadata.pop(CHECKSUM) != _checksum(tensors, metadata):
        raise damaged(path, "it has been damaged since it was written: its checksum is wrong")
    return tensors, metadata


def _checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Return a checksum of all tensors, in any order, and of the metadata."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        # as bytes: NumPy does not know all of PyTorch's number formats
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def _facts(path: Path, metadata: Mapping[str, str] | None) -> _Facts:
    if metadata is None or "peewit" not in metadata:
        raise _foreign(path)
    try:
        # not with msgspec: the loss of a network that has diverged may be NaN
        facts = json.loads(metadata["peewit"])
    except (ValueError, RecursionError) as error:
        raise damaged(path, "its metadata is not valid JSON") from error
    check_format(path, facts.get("format") if isinstance(facts, dict) else None, FORMAT)
    return validated(path, facts, _Facts)


def _alike(value: Any, like: Any) -> bool:
    """Return whether ``value`` from a file has the types of ``like``, and only finite numbers."""
    if isinstance(like, dict):
        return (
            isinstance(value, dict)
            and value.keys() == like.keys()
            and all(_alike(value[name], like[name]) for name in like)
        )
    if isinstance(like, list | tuple):
        return (
            isinstance(value, list)
            and len(value) == len(like)
            and all(_alike(*pair) for pair in zip(value, like, strict=True))
        )
    if type(like) is float:
        return type(value) in (int, float) and 0 <= value < math.inf
    return type(value) is type(like) and (type(value) is not int or value >= 0)


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
