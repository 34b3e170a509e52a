"""Break trainings in every way, and check that they end as if nothing had happened.

usage: python benchmarks/faults.py [--kinds NAME ...] [--kills 200] [--seed 0] [--log FILE]

Small trainings of several recipes are disturbed, resumed to their end, and compared with an
undisturbed one: weights, history and metrics must be identical.

kill       SIGKILL at a random moment (--kills times), between the start and the end of the command
stop       SIGSTOP, and SIGCONT two seconds later
hangup     SIGHUP, as from a closed terminal
fail       each file made for writing, flush to disk and rename fails once, as with a full disk
           (faults_child.py)
twice      two processes resume the same run: one of them is refused

A training that cannot be resumed, another result, a traceback and a file left behind are failures.
The caches are new for every training. Needs Linux or macOS.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rawlog
from PIL import Image

from peewit import Run
from peewit.errors import PeewitError
from peewit.runs.repetition import compare

SMALL = ("--threads", "1", "--seed", "3")
RECIPES = {
    "tutorial": ("--recipe", "tutorial", "--epochs", "3", "--image-size", "22", "--folds", "0"),
    "fast": ("--recipe", "fast", "--model", "fast-xs", "--epochs", "3", "--image-size", "16"),
    "head": ("--recipe", "pretrained", "--image-size", "32"),
    "fine-tuning": (
        *("--recipe", "pretrained", "--image-size", "32", "--epochs", "2", "--folds", "0"),
        *("--batch-size", "8"),
    ),
}
KINDS = ("kill", "stop", "hangup", "fail", "twice")
CLASSES, PICTURES, SIDE = ("blue", "green", "red"), 20, 48
CHILD = Path(__file__).with_name("faults_child.py")
MOST_ATTEMPTS = 20


def write_pictures(folder):
    """Write small pictures of noise with a tint for each class."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(PICTURES):
            pixels = draw.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
            pixels[..., label] += 50
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


class Training:
    """A training in a folder of its own.

    Parameters
    ----------
    work, pictures : Path
    recipe : str
        A key of ``RECIPES``.
    """

    def __init__(self, work, pictures, recipe):
        self.folder = Path(tempfile.mkdtemp(dir=work))
        self.run, self.home = self.folder / "run", self.folder / "home"
        self.begin = ["train", pictures, *RECIPES[recipe], *SMALL, "--out", self.run]

    def arguments(self):
        """Return the arguments that go on with the training."""
        begun = (self.run / "run.json").is_file()
        return ["train", "--resume", self.run] if begun else self.begin

    def start(self, launcher=("-m", "peewit"), arguments=None):
        return subprocess.Popen(
            [sys.executable, *map(str, launcher), *map(str, arguments or self.arguments())],
            env=os.environ | {"PEEWIT_HOME": str(self.home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self):
        """Go on to the end; return what was wrong, or ""."""
        process = self.start()
        _, errors = process.communicate()
        if process.returncode:
            return f"resuming failed with {process.returncode}: {errors[-500:]}"
        return ""

    def phase(self):
        """Return what the training has written so far."""
        if not self.run.is_dir():
            return "preparing"
        files = {path.name for path in self.run.iterdir()}
        for name, reached in (
            ("report.html", "report"),
            ("metrics.json", "tested"),
            ("checkpoint.safetensors", "training"),
            ("run.json", "begun"),
        ):
            if name in files:
                return reached
        return "folder"

    def problems(self, reference):
        """Return what differs from the undisturbed run, or is left behind; "" if nothing."""
        try:
            found = compare(reference, Run.open(self.run))
        except PeewitError as error:
            return str(error)
        if not found.identical:
            return json.dumps(found.to_dict())
        left = [path.name for path in self.folder.rglob("*") if path.name.endswith(".part")]
        names = {path.name for path in self.run.iterdir()}
        more = names - {path.name for path in reference.path.iterdir()}
        return f"left behind: {sorted([*left, *more])}" if left or more else ""


def failed_badly(code, errors):
    """Return what is wrong about the end of a disturbed command; "" if it is as it should be."""
    if "Traceback" in errors or "bug in Peewit" in errors:
        return errors[-500:]
    sentences = [line for line in errors.splitlines() if line.startswith("peewit: ")]
    if code == 1 and len(sentences) != 1:
        return f"{len(sentences)} sentences: {errors[-500:]}"
    return ""


def disturbed(kind, training, reference, seconds, draw):
    """Disturb a training by signals, and finish it; return facts for the log."""
    wrong, phases = "", []
    for _ in range(MOST_ATTEMPTS):
        process = training.start()
        time.sleep(draw.uniform(0, 1.1 * seconds))
        if process.poll() is not None:  # it has ended before
            process.communicate()
            break
        phases.append(training.phase())
        if kind == "stop":
            process.send_signal(signal.SIGSTOP)
            time.sleep(2)
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGHUP)
        _, errors = process.communicate()
        if kind != "kill":
            wrong = wrong or failed_badly(process.returncode, errors)
        if draw.random() < 0.5:
            break  # or it is disturbed again
    return {"wrong": wrong or training.finish() or training.problems(reference), "phases": phases}


def twice(training):
    """Resume a run by two processes at a time; return facts for the log."""
    if wrong := training.finish():
        return {"wrong": wrong}
    arguments = ["train", "--resume", training.run, "--epochs", "30"]
    pair = [training.start(arguments=arguments) for _ in range(2)]
    errors = [process.communicate()[1] for process in pair]
    codes = [process.returncode for process in pair]
    wrong = "".join(map(failed_badly, codes, errors))
    if sorted(codes) != [0, 1]:
        wrong = f"exit codes {codes}: {errors}"
    return {"wrong": wrong}


def operations(training):
    """Return how many operations on files a training has."""
    _, errors = training.start(launcher=(CHILD, "0")).communicate()
    return int(errors.rpartition("operations: ")[2])


def fail_at(number, training, reference):
    """Let the operation with this number fail, and finish the training."""
    process = training.start(launcher=(CHILD, str(number)))
    _, errors = process.communicate()
    wrong = failed_badly(process.returncode, errors.rpartition("operations: ")[0])
    return {"wrong": wrong or training.finish() or training.problems(reference)}


def jobs(kind, options, training):
    """Return the recipe and a number for each training of a kind."""
    names = options.recipes
    if kind == "kill":
        return [(names[number % len(names)], number) for number in range(options.kills)]
    if kind == "fail":
        counts = {name: operations(training(name)) for name in names}
        return [(name, at) for name in names for at in range(1, counts[name] + 1)]
    return [(name, 0) for name in names if kind != "twice" or name != "head"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="(default: today's)")
    options = parser.parse_args()
    log, draw, failures = options.log or rawlog.today("faults"), random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        pictures = work / "pictures"
        write_pictures(pictures)
        known = {}
        for name in options.recipes:
            training = Training(work, pictures, name)
            began = time.monotonic()
            if wrong := training.finish():
                sys.exit(wrong)
            known[name] = Run.open(training.run), time.monotonic() - began
        for kind in options.kinds:
            for name, number in jobs(kind, options, lambda name: Training(work, pictures, name)):
                training, (reference, seconds) = Training(work, pictures, name), known[name]
                if kind == "fail":
                    found = fail_at(number, training, reference)
                elif kind == "twice":
                    found = twice(training)
                else:
                    found = disturbed(kind, training, reference, seconds, draw)
                failures += bool(found["wrong"])
                what = {"kind": kind, "recipe": name, "number": number} | found
                rawlog.append(log, rawlog.machine() | what)
                print(json.dumps(what), flush=True)
    print(f"{failures} failures", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
