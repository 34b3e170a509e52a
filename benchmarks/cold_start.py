"""Measure how long a classifier takes from a folder of photographs, and after adding some.

usage: python benchmarks/cold_start.py PATH [--pictures 500] [--added 20] [--runs 3] [--log FILE]
       python benchmarks/cold_start.py --table [--log FILE]

PATH is a folder with class folders, of which ``--pictures`` are used, as many in each class as
possible, and the last class only for the third measurement. Each run has new, empty caches and
measures three commands, each from the start of its process to its end: `peewit train`, everything
included, from the decoding of the pictures to the report; the same after ``--added`` pictures were
added; and the same after a class of so many pictures was added.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

import child
import rawlog

PARTS = ("cold", "pictures added", "class added")
TRAIN = ["--fine-tune", "none", "--minutes", "5"]


def copied(files, folder):
    """Copy pictures into a new or existing folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)


def measure(options, seed):
    """Measure the three commands once, and log them."""
    from peewit import Run

    classes = sorted(folder for folder in options.path.iterdir() if folder.is_dir())
    *usual, last = [sorted(file for file in one.iterdir() if file.is_file()) for one in classes]
    each = options.pictures // len(usual)
    more = options.added // len(usual)
    with tempfile.TemporaryDirectory() as place:
        pictures, home = Path(place, "pictures"), Path(place, "home")
        for number, part in enumerate(PARTS):
            if number == 0:
                for folder, files in zip(classes, usual, strict=False):
                    copied(files[:each], pictures / folder.name)
            elif number == 1:
                for folder, files in zip(classes, usual, strict=False):
                    copied(files[each : each + more], pictures / folder.name)
            else:
                copied(last[: options.added], pictures / classes[-1].name)
            out = Path(place, f"run{number}")
            command = [sys.executable, "-m", "peewit", "train", pictures, *TRAIN, "--out", out]
            done = child.run([*command, "--seed", seed], {"PEEWIT_HOME": str(home)})
            run = Run.open(out)
            row = {
                "set": options.path.parent.name,
                "part": part,
                "seed": seed,
                "pictures": len(list(pictures.rglob("*.*"))),
                "seconds": done.seconds,
                "accuracy": run.metrics["accuracy"],
                "interval": run.metrics["accuracy_interval"],
                "split": run.metrics["split"],
                "peak_memory_mib": done.peak_memory_mib,
            }
            rawlog.append(options.log, rawlog.machine() | row)
            print(row, flush=True)


def table(log):
    """Print the mean and the spread of each part."""
    rows = rawlog.read(log or rawlog.newest("cold_start"))
    for part in PARTS:
        found = [row for row in rows if row["part"] == part]
        if found:
            seconds = [row["seconds"] for row in found]
            spread = stdev(seconds) if len(seconds) > 1 else 0.0
            print(
                f"{part}: {found[0]['pictures']} pictures, {mean(seconds):.1f} s ± {spread:.1f}, "
                f"accuracy {mean(row['accuracy'] for row in found):.1%}, n = {len(found)}"
            )


def main():
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--added", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        options.log = options.log or rawlog.today("cold_start")
        for seed in range(options.runs):
            if not rawlog.find(options.log, seed=seed, part=PARTS[-1]):
                measure(options, seed)
    table(options.log)


if __name__ == "__main__":
    main()
