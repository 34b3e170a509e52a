"""Training by several processes, on one machine or many: data parallelism under torchrun.

Rank 0 trains as a single process does: it plans, steps, validates, saves, tests and reports. The
other processes take part in its steps: rank 0 sends them the batch and the learning rates, each
process computes the gradient of its part of the batch, and the gradients are summed.
``DistributedDataParallel`` is not used, because the fast recipes freeze a layer in the middle of
the training, which it does not support.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from peewit.errors import PeewitError
from peewit.models.synchronised import BatchPart, synchronise
from peewit.system.ranks import restarts, world_size

# The other processes wait for rank 0 while it validates, tests and writes the report. A process
# that has ended is noticed at once, because its connections are closed.
TIMEOUT = timedelta(days=7)

_BEGIN, _STEP, _END = range(3)


@contextmanager
def connected() -> Iterator[Processes | None]:
    """Connect the processes that torchrun has started; yield None if there is only one.

    Raises
    ------
    PeewitError
        They cannot be connected, or one of them was lost.
    """
    if world_size() == 1:
        yield None
        return
    with _failures():
        store, rank, size = next(distributed.rendezvous("env://"))  # type: ignore[attr-defined]
        # a store of its own for each attempt: the addresses of earlier processes are in the first
        store = distributed.PrefixStore(f"attempt {restarts()}", store)  # type: ignore[attr-defined]
        distributed.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT
        )
        processes = Processes(rank, size)
        try:
            yield processes
        finally:
            distributed.destroy_process_group()


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the exceptions of a broken connection into a PeewitError."""
    try:
        yield
    except distributed.DistError as error:
        raise _lost() from error
    except RuntimeError as error:
        # gloo's have no class of their own
        if "gloo" not in str(error) and "onnection" not in str(error):
            raise
        raise _lost() from error


def _lost() -> PeewitError:
    return PeewitError(
        "the connection to another process of the training was lost",
        "it has ended, or cannot be reached",
        "see its output, and resume from the last checkpoint (--resume RUN)",
    )


@dataclass
class Processes:
    """The processes of a training, seen from one of them.

    Parameters
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        The number of processes.
    """

    rank: int
    size: int
    part: BatchPart = field(default_factory=BatchPart, init=False)

    def synchronise(self, model: nn.Module) -> None:
        """Let the layers of ``model`` that depend on the whole batch work across processes."""
        self.part = synchronise(model)

    def text_of_first(self, text: str = "") -> str:
        """Return the text of rank 0; called by all processes."""
        content = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        count = torch.tensor([len(content)])
        distributed.broadcast(count, 0)
        sent = content if self.rank == 0 else torch.empty(int(count), dtype=torch.uint8)
        distributed.broadcast(sent, 0)
        return sent.numpy().tobytes().decode()

    def begin(self, model: nn.Module) -> None:
        """Give all processes the weights and the random state of rank 0, which calls this."""
        distributed.broadcast(torch.tensor([_BEGIN, 0, 0, 0]), 0)
        self._share_state(model)

    def send(self, indices: npt.NDArray[np.int64], visit: int, fraction_done: float) -> None:
        """Send the other processes the batch of the next step; called by rank 0."""
        fraction = np.float64(fraction_done).view(np.int64)
        distributed.broadcast(torch.tensor([_STEP, visit, len(indices), int(fraction)]), 0)
        distributed.broadcast(torch.from_numpy(indices), 0)

    def end(self) -> None:
        """Tell the other processes that there are no further steps; called by rank 0."""
        distributed.broadcast(torch.tensor([_END, 0, 0, 0]), 0)

    def received(self, model: nn.Module) -> Iterator[tuple[npt.NDArray[np.int64], int, float]]:
        """Yield what rank 0 sends with ``send`` until it ends the training."""
        while True:
            header = torch.empty(4, dtype=torch.int64)
            distributed.broadcast(header, 0)
            kind, visit, count, fraction = header.tolist()
            if kind == _END:
                return
            if kind == _BEGIN:
                self._share_state(model)
                continue
            indices = torch.empty(count, dtype=torch.int64)
            distributed.broadcast(indices, 0)
            yield indices.numpy(), visit, float(np.int64(fraction).view(np.float64))

    @contextmanager
    def dividing(self, count: int) -> Iterator[slice]:
        """Yield the part of a batch of ``count`` images that this process has, for one step."""
        part = self.part
        part.first, part.end = (count * one // self.size for one in (self.rank, self.rank + 1))
        part.of = count
        try:
            yield part.images
        finally:
            part.of = 0

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradients of ``model`` by their sums over all processes."""
        trained = [one for one in model.parameters() if one.requires_grad]
        # without an image of the batch there is no gradient
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
        sums = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(sums)
        parts = torch.split(sums, [one.numel() for one in trained])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def of_all(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values of all images of the batch, given those of this process's images.

        Parameters
        ----------
        values : float32 tensor, shape (n, k)

        Returns
        -------
        float32 tensor, shape (N, k)
        """
        found = torch.zeros(self.part.of, *values.shape[1:])
        found[self.part.images] = values
        distributed.all_reduce(found)
        return found

    def _share_state(self, model: nn.Module) -> None:
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.detach(), 0)
        state = torch.get_rng_state()
        distributed.broadcast(state, 0)
        torch.set_rng_state(state)
