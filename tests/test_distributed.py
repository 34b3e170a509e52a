"""``torchrun -m peewit train``: several processes together train as one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import distributed_child
from made_pictures import folder_of_pictures
from peewit.runs import folder as runfolder
from peewit.runs.run import Run

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch is built without torch.distributed"
)
RECIPE = ("--recipe", "tutorial", "--image-size", "22", "--batch-size", "10", "--folds", "0")


def started(
    processes: int, home: Path, *arguments: str | Path, restarts: int = 0
) -> subprocess.Popen[str]:
    """Start Python in several processes by torchrun."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    torchrun += (f"--max-restarts={restarts}",)
    return subprocess.Popen(
        [sys.executable, *torchrun, *arguments],
        env={
            **os.environ,
            "PEEWIT_HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a training; return what it printed."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    # the other processes print nothing
    assert out.count("accuracy") == 1
    return error


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_pictures(tmp_path_factory.mktemp("pictures") / "made", 20, size=(64, 80))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_a_step_of_three_processes_is_that_of_one(home: Path) -> None:
    file = home / "steps.pt"
    process = started(3, home, distributed_child.__file__, file)
    before = torch.get_num_threads()
    try:
        wanted = distributed_child.steps(None)
    finally:
        torch.set_num_threads(before)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    found = torch.load(file, weights_only=True)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        difference = (found[name] - tensor).double().norm().item()
        # Winograd's convolution has ten times the rounding error of a direct one
        assert difference <= 3e-4 * tensor.double().norm().item() + 1e-6, name


def test_a_run_goes_on_with_another_number_of_processes(
    pictures: Path, home: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    train = ("-m", "peewit", "train", pictures, *RECIPE)
    notes = finished(started(2, home, *train, "--epochs", "1", "--out", out))
    assert notes.count("there is no test set") == 1
    finished(started(1, home, "-m", "peewit", "train", "--resume", out, "--epochs", "2"))
    finished(started(1, home, *train, "--epochs", "2", "--out", whole))
    one, two = Run.open(whole), Run.open(out)
    assert [row["images"] for row in two.history] == [row["images"] for row in one.history]
    for row, other in zip(one.history, two.history, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-3)
    assert two.metrics["accuracy"] == one.metrics["accuracy"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes are found in /proc")
def test_a_lost_process_is_replaced_and_the_training_goes_on(
    pictures: Path, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ("--epochs", "30", "--checkpoint-minutes", "0.001", "--out", out)
    train = ("-m", "peewit", "train", pictures, *RECIPE, *options)
    process = started(2, home, *train, restarts=1)
    kill_when(out / runfolder.CHECKPOINT, process.pid)
    error = finished(process)
    assert "the connection to another process of the training was lost" in error
    assert "resuming after" in error
    assert len(Run.open(out).history) == 30


def kill_when(file: Path, torchrun: int) -> None:
    """Kill the second of torchrun's processes when ``file`` exists."""
    while not file.is_file():
        time.sleep(0.05)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to another user
            continue
        if int(status[1]) == torchrun and b"RANK=1" in environment:
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise AssertionError("there is no process to kill")
