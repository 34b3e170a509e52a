"""Train one epoch of the tutorial in Peewit, through its public API.

usage: python peewit_tutorial.py FOLDER    (FOLDER as for keras_tutorial.py)

The last line of output is a JSON object. PEEWIT_KERNELS=off in the environment disables the
compiled kernels. Unlike in keras_tutorial.py, the epoch includes the set-up of the first steps.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from memory import page_faults, peak_memory

import peewit
from peewit import kernels


class Stopwatch(peewit.Callback):
    """Measure the time from the start of training to the end of its last step."""

    steps = 0

    def on_train_begin(self, *_):
        self.faults, self.began = page_faults(), time.perf_counter()

    def on_step_end(self, _):
        self.steps, self.ended = self.steps + 1, time.perf_counter()
        self.faults_ended = page_faults()


folder = Path(sys.argv[1])
watch = Stopwatch()
names = [str(number) for number in range(10)]
data = peewit.Dataset(np.load(folder / "images.npy"), np.load(folder / "labels.npy"), names)
some = data.take(np.arange(1000))
recipe = peewit.Recipe.preset("tutorial", epochs=1, validate_on="test", checkpoint_minutes=60)
with tempfile.TemporaryDirectory() as runs:
    run = peewit.train(data, recipe, test=some, out=Path(runs, "run"), progress=watch)
    print(
        json.dumps(
            {
                "images_per_second": len(data) / (watch.ended - watch.began),
                "peak_memory_mib": peak_memory(),
                "page_faults_a_step": (watch.faults_ended - watch.faults) / watch.steps,
                "loss": run.history[-1]["loss"],
                "peewit": peewit.__version__,
                "torch": torch.__version__,
                "kernels": kernels.available(),
                "threads": run.recipe.threads,
                "python": sys.version.split()[0],
            }
        )
    )
