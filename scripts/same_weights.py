"""Compare the weights trained by an earlier revision and by this checkout, bit for bit.

    python scripts/same_weights.py 990df07

A refactoring must not change a single bit of the weights. Each case is a short training that runs
with both checkouts, in separate processes and on the same synthetic images. Weights, history and
final test must be identical, except for times, also in cases that are interrupted and resumed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FAST = {"preset": "fast", "model": "fast-xs", "epochs": 4, "batch_size": 100}

# Runs with one of the checkouts on PYTHONPATH, so it may use only names that both have.
CHILD = """
import json, sys
import numpy as np
import peewit

job = json.loads(sys.argv[1])
random = np.random.default_rng(7)
side, count, classes = job["side"], job["images"], 10
labels = np.arange(count) % classes
# each class has its own colours under noise, so that there is something to learn
base = random.integers(0, 256, (classes, 4, 4, 3))
large = np.repeat(np.repeat(base, -(-side // 4), 1), -(-side // 4), 2)[:, :side, :side]
images = (0.4 * large[labels] + 0.6 * random.integers(0, 256, (count, side, side, 3)))
names = [f"class {number}" for number in range(classes)]
pictures = peewit.Dataset(images.astype(np.uint8), labels, names)
test, training = pictures.take(range(0, 200)), pictures.take(range(200, count))
values = dict(job["recipe"])
recipe = peewit.Recipe.preset(values.pop("preset"), **values)
if "batch_norm_statistics" in recipe.to_dict():
    # the cases are short, and earlier revisions test with the moving statistics
    recipe = recipe.replace(batch_norm_statistics="moving")
if job["resume"]:
    peewit.train(training, recipe, test=test, resume=job["out"])
else:
    peewit.train(training, recipe, test=test, out=job["out"])
"""


@dataclass(frozen=True)
class Case:
    """A short training to compare.

    Parameters
    ----------
    recipe : dict
        Name of the preset and the fields to change.
    kernels : bool
        Use the compiled kernels.
    interrupted : bool
        Interrupt it by Ctrl-C within an epoch, then resume.
    first_epochs : int, optional
        Train for this many epochs, then resume it to the recipe's epochs.
    side : int
        Height and width of the images in pixels.
    images : int
        Number of images, 200 of them for the test.
    """

    recipe: dict[str, Any]
    kernels: bool = True
    interrupted: bool = False
    first_epochs: int | None = None
    side: int = 32
    images: int = 2_200


BEST = {"preset": "best", "model": "fast-xs", "epochs": 2, "batch_size": 100}
TUTORIAL = {"preset": "tutorial", "epochs": 2}
BFLOAT16 = {"precision": "bfloat16"}
CASES = {
    "tutorial": Case(TUTORIAL),
    "tutorial, without kernels": Case(TUTORIAL, kernels=False),
    "tutorial, bfloat16": Case(TUTORIAL | BFLOAT16),
    "tutorial, one thread": Case(TUTORIAL | {"threads": 1}),
    "tutorial, interrupted": Case(TUTORIAL | {"checkpoint_minutes": 0}, interrupted=True),
    "tutorial, enlarged small images": Case(TUTORIAL | {"epochs": 1}, side=12),
    "fast": Case(FAST),
    "fast, without kernels": Case(FAST, kernels=False),
    "fast, bfloat16": Case(FAST | BFLOAT16),
    "fast, bfloat16, without kernels": Case(FAST | BFLOAT16, kernels=False),
    "fast, interrupted": Case(FAST | {"checkpoint_minutes": 0}, interrupted=True),
    "fast, resumed for more epochs": Case(FAST, first_epochs=2),
    "fast, all images": Case(FAST | {"skip_easy": 0.0, "flip": "random"}),
    "fast, Adam": Case(FAST | {"optimizer": "adam", "lr": 1e-3}),
    "fast, larger images": Case(FAST | {"epochs": 1}, side=48, images=1_200),
    "best": Case(BEST),
    "best, bfloat16": Case(BEST | BFLOAT16),
}


def main() -> int:
    """Compare all cases; return 1 if any bit differs, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("revision", help="the earlier git revision")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="run only cases whose name contains TEXT"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the earlier checkout in DIR")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        earlier = checkout(options.revision, options.keep or folder / "earlier")
        differing = 0
        for name, case in CASES.items():
            if options.only not in name:
                continue
            runs = [
                trained(case, source, folder / f"{name}-{which}")
                for which, source in (("earlier", earlier), ("now", ROOT))
            ]
            wrong = differences(*runs)
            differing += bool(wrong)
            print(f"{name}: {'; '.join(wrong) if wrong else 'identical'}", flush=True)
    print(f"{differing} cases differ" if differing else "all cases are identical")
    return int(differing > 0)


def checkout(revision: str, folder: Path) -> Path:
    """Extract ``revision`` to ``folder``, compile its kernels, and return the folder."""
    if not (folder / "src").is_dir():
        archive = subprocess.run(
            ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=folder,
            check=True,
            stdout=sys.stderr,
        )
    return folder


def trained(case: Case, source: Path, out: Path) -> Path:
    """Train ``case`` with the checkout ``source``; return the run folder ``out``."""
    if case.interrupted:
        run(case, source, out, interrupt=True)
        run(case, source, out, resume=True)
    elif case.first_epochs:
        run(case, source, out, epochs=case.first_epochs)
        run(case, source, out, resume=True)
    else:
        run(case, source, out)
    return out


def run(
    case: Case,
    source: Path,
    out: Path,
    *,
    resume: bool = False,
    interrupt: bool = False,
    epochs: int | None = None,
) -> None:
    """Run one training process; with ``interrupt``, send Ctrl-C after its first checkpoint."""
    recipe = case.recipe if epochs is None else case.recipe | {"epochs": epochs}
    job = {
        "recipe": recipe,
        "out": str(out),
        "resume": resume,
        "side": case.side,
        "images": case.images,
    }
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "PEEWIT_HOME": str(out.parent)}
    if not case.kernels:
        environment["PEEWIT_KERNELS"] = "off"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(job)],
        env=environment,
        cwd=out.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    if interrupt:
        while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    stopped = "Interrupted" in errors
    if stopped != interrupt or (process.returncode != 0 and not interrupt):
        raise SystemExit(f"{source}: the training of {out.name} ended unexpectedly:\n{errors}")


def differences(earlier: Path, now: Path) -> list[str]:
    """Return the differences between two run folders, apart from times."""
    from safetensors.numpy import load_file

    found = []
    for file in ("model.safetensors", "checkpoint.safetensors"):
        one, other = (load_file(folder / file) for folder in (earlier, now))
        if one.keys() != other.keys():
            found.append(f"{file} has different tensors")
            continue
        differing = [name for name in one if one[name].tobytes() != other[name].tobytes()]
        if differing:
            found.append(f"{len(differing)} of {len(one)} tensors of {file} differ")
    if history(earlier) != history(now):
        found.append("the history differs")
    before, after = metrics(earlier), metrics(now)
    if before != {name: after.get(name) for name in before}:  # there may be new ones
        found.append("the final test differs")
    return found


def history(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the history without the columns that depend on time."""
    timed = {"seconds", "images_per_second", "gflops", "share_of_best"}
    with (folder / "history.csv").open(encoding="utf-8", newline="") as table:
        return [
            {key: value for key, value in row.items() if key not in timed}
            for row in csv.DictReader(table)
        ]


def metrics(folder: Path) -> dict[str, Any]:
    """Return the metrics of the final test without those that depend on time."""
    timed = {"training_seconds", "gflops", "share_of_best"}
    numbers = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {key: value for key, value in numbers.items() if key not in timed}


if __name__ == "__main__":
    sys.exit(main())
