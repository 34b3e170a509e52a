"""Run a command in its own process and measure it; summarise the runs of `peewit train`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import rawlog


@dataclass(frozen=True)
class Finished:
    """A finished command: wall seconds, peak memory in MiB (None if unknown), and its output."""

    seconds: float
    peak_memory_mib: float | None
    output: str

    @property
    def report(self):
        """The JSON object that the command printed as its last line."""
        return json.loads(self.output.strip().splitlines()[-1])


def run(command, environment=None):
    """Run ``command`` to its end; exit with its error output if it fails.

    Parameters
    ----------
    command : list of str or path
    environment : dict, optional
        Variables to add to those of this process.
    """
    command = [str(word) for word in command]
    signal.signal(signal.SIGTERM, _terminated)
    # files, not pipes: a full pipe that nobody reads would block the command
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | (environment or {}), stdout=output, stderr=errors
        )
        try:
            peak = _wait(process)
        except BaseException:  # Ctrl-C and SIGTERM too: leave no orphaned training behind
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - began
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
        return Finished(seconds, peak, output.read())


def _terminated(number, frame):
    sys.exit(128 + number)


def _wait(process):
    """Wait for ``process``; return its peak memory in MiB, or None if unknown."""
    if not hasattr(os, "wait4"):  # Windows
        process.wait()
        return None
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def train(data, seed, arguments):
    """Run `peewit train cifar10` as a user would, and return the measurements as a log row.

    Parameters
    ----------
    data : path
        The archive or folder.
    seed : int
    arguments : list of str
        Further arguments, such as ["--minutes", "5"].
    """
    from peewit import Run

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        command = [sys.executable, "-m", "peewit", "train", "cifar10", "--data", data]
        command += ["--seed", seed, "--out", path, *arguments]
        done = run(command)
        return facts(Run.open(path)) | {
            "seed": seed,
            "wall_seconds": done.seconds,
            "peak_memory_mib": done.peak_memory_mib,
            **rawlog.machine(),
        }


def facts(run):
    """Return a finished Run's accuracies, times, rates and main recipe fields for a log row."""
    last, metrics, images = run.history[-1], run.metrics, run.dataset["images"]["training"]
    gflops, share = metrics["gflops"], metrics.get("share_of_best")
    return {
        "accuracy": metrics["accuracy"],
        # without test-time augmentation; recipes that use none have only one accuracy
        "single_view_accuracy": metrics.get("single_view_accuracy", metrics["accuracy"]),
        "training_seconds": metrics["training_seconds"],
        "model": run.recipe.model,
        "image_size": run.recipe.image_size,
        "batch_size": run.recipe.batch_size,
        "lr": run.recipe.lr,
        "precision": run.recipe.precision,
        "epochs": last["images"] / images,  # a budget may end within an epoch
        "training_images": images,
        "flops": metrics["flops"],
        "gflops": gflops,
        "best_gflops": gflops / share if share else None,
        "share_of_best": share,
        "history": run.history,
    }
