"""Time training steps of one process of several; started by torchrun for ``distributed.py``.

usage: distributed_child.py JSON [recipe name, its changes, image size, warm-up steps, timed steps]
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from peewit.data.dataset import Dataset
from peewit.training.build import setup_of
from peewit.training.distributed import connected
from peewit.training.loop import Batch, follow, train_step
from peewit.training.recipe import Recipe
from peewit.training.schedules import set_learning_rates

CLASSES = 10
FEWEST = 1_000  # noise images
HALF_DONE = 0.5


def sent_bytes(interface):
    """Return how many bytes this machine has sent on a network interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/tx_bytes").read_text())


def main():
    name, changes, size, warm_up, steps, interface = json.loads(sys.argv[1])
    recipe = Recipe.preset(name, **changes)
    count = max(FEWEST, recipe.batch_size)
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    data = Dataset(noise, np.arange(count) % CLASSES, [str(one) for one in range(CLASSES)])
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(0)
    with connected() as processes:
        setup = setup_of(data, data.take(range(CLASSES)), recipe, lambda note: None)
        if processes:
            processes.synchronise(setup.model)
            setup = replace(setup, processes=processes)
        setup.model.train()
        set_learning_rates(setup.optimizer, HALF_DONE)
        if processes and processes.rank:
            follow(setup)
            return
        if processes:
            processes.begin(setup.model)
        seconds, sent = [], 0
        for step in range(warm_up + steps):
            batch = Batch(np.random.default_rng(step).permutation(count)[: recipe.batch_size], step)
            if step == warm_up and interface:
                sent = sent_bytes(interface)
            began = time.perf_counter()
            if processes:
                processes.send(batch.indices, batch.visit, HALF_DONE)
            train_step(setup, batch)
            seconds.append(time.perf_counter() - began)
        if processes:
            processes.end()
        trained = [one for one in setup.model.parameters() if one.requires_grad]
        found = {
            "seconds": seconds[warm_up:],
            "gradient_bytes": 4 * sum(one.numel() for one in trained),
            "sent_bytes_per_step": (sent_bytes(interface) - sent) / steps if interface else None,
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
