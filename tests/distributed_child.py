"""One training step of several recipes, for ``test_distributed.py``; started by torchrun.

usage: distributed_child.py FILE
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from peewit.data.dataset import Dataset
from peewit.training.build import setup_of
from peewit.training.distributed import Processes, connected
from peewit.training.loop import Batch, follow, train_step
from peewit.training.recipe import Recipe

# dropout and batch normalisation; batch normalisation in kernels; neither
RECIPES = {
    "tutorial": Recipe.preset("tutorial", image_size=22),
    "fast": Recipe.preset(
        "fast", model="fast-xs", batch_size=20, lr=0.1, translate=1, skip_easy=0.0
    ).replace(class_weights="none"),
    "pretrained": Recipe.preset("pretrained", image_size=32, class_weights="sqrt"),
}
# of one and of two images: too few for three processes
COUNTS = (20, 2)


def step(recipe: Recipe, count: int, processes: Processes | None) -> dict[str, torch.Tensor] | None:
    """Return loss, losses, gradients and statistics of one step; None if this is not rank 0."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    data = Dataset(images, np.arange(60) % 3, ["a", "b", "c"])
    setup = setup_of(data.take(range(50)), data.take(range(50, 60)), recipe, lambda note: None)
    torch.manual_seed(0)
    if processes:
        processes.synchronise(setup.model)
        setup = replace(setup, processes=processes)
    for group in setup.optimizer.param_groups:
        group["lr"] = group["first_lr"] = 0.0
    setup.model.train()
    if processes and processes.rank:
        torch.manual_seed(processes.rank)  # rank 0's state is to be used
        follow(setup)
        return None
    batch = Batch(np.arange(7, 7 + count), 1)
    if processes:
        processes.begin(setup.model)
        processes.send(batch.indices, batch.visit, 0.0)
    result = train_step(setup, batch)
    if processes:
        processes.end()
    found = {
        name: parameter.grad
        for name, parameter in setup.model.named_parameters()
        if parameter.grad is not None
    }
    found |= dict(setup.model.named_buffers())
    losses = torch.tensor(np.array(result.losses))
    return found | {"loss": torch.tensor(result.loss), "losses": losses}


def steps(processes: Processes | None) -> dict[str, torch.Tensor]:
    """Return the results of all recipes and batch sizes."""
    torch.set_num_threads(1)
    all_found = {}
    for name, recipe in RECIPES.items():
        for count in COUNTS:
            for key, tensor in (step(recipe, count, processes) or {}).items():
                all_found[f"{name} {count} {key}"] = tensor.detach().clone()
    return all_found


if __name__ == "__main__":
    with connected() as connection:
        results = steps(connection)
        if results:
            torch.save(results, Path(sys.argv[1]))
