"""Measure how much speed a training by epochs keeps beside a busy loop.

usage: python benchmarks/busy_epochs.py --data cifar-10-python.tar.gz [--models tutorial fast-s]
           [--runs 3] [--log FILE]
       python benchmarks/busy_epochs.py --table [--log FILE]

Each run trains a network for one epoch of 8,000 images in its own process. Under load, one busy
loop runs for every two cores, from start to end of the process. The conditions alternate: without
and with load, and with threads as Peewit sets them (their number by ``peewit.system.load``, how
they wait by ``peewit.system.openmp``) and as PyTorch does by default. Each run appends one line to
the log; runs that are in the log are skipped. The table says whether all runs of a condition have
the same weights, bit for bit.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import child
import rawlog
from busy_machine import burning

IMAGES = 8_000
# one thread per core, and the defaults of GCC's runtime, in turns of a loop, and of Intel's and
# LLVM's, in milliseconds
DEFAULTS = {
    "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    "GOMP_SPINCOUNT": "300000",
    "KMP_BLOCKTIME": "200",
}


def trained(data, model):
    """Train ``model`` and return its images per second and the SHA-256 of its weights."""
    import peewit

    preset = "tutorial" if model == "tutorial" else "fast"
    recipe = peewit.Recipe.preset(preset, model=model, epochs=1, validate_on="test")
    loaded = peewit.load("cifar10", data=data)
    some, few = loaded.train.take(range(IMAGES)), loaded.test.take(range(100))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        run = peewit.train(some, recipe, test=few, out=out, progress=peewit.Callback())
        weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    row = run.history[-1]
    return {
        "images_per_second": len(some) / row["seconds"],
        "training_seconds": row["seconds"],
        "training_threads": run.recipe.threads,
        "weights": weights,
    }


def measure(options):
    """Run the measurements that are not in the log."""
    burners = max(1, (os.cpu_count() or 1) // 2)
    for number in range(options.runs):
        for model in options.models:
            for by_default in (False, True):
                for busy in (False, True):
                    what = {
                        "model": model,
                        "settings": "default" if by_default else "peewit",
                        "busy": busy,
                        "number": number,
                    }
                    if rawlog.find(options.log, **what):
                        continue
                    command = [sys.executable, __file__, "--data", options.data, "--run", model]
                    with burning(0.0, burners if busy else 0):
                        done = child.run(command, DEFAULTS if by_default else None)
                    row = {**what, "burners": burners if busy else 0, **done.report}
                    rawlog.append(options.log, row | rawlog.machine())
                    print(f"{model}, {what['settings']}, {'busy' if busy else 'quiet'}: "
                          f"{row['images_per_second']:,.0f} images/s", flush=True)  # fmt: skip


def table(rows):
    """Return the Markdown table, of medians."""
    lines = [
        "| network | settings | runs | quiet | beside a loop | kept | same weights |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for model, settings in sorted({(row["model"], row["settings"]) for row in rows}):
        same = [row for row in rows if (row["model"], row["settings"]) == (model, settings)]
        speeds = [
            [row["images_per_second"] for row in same if row["busy"] is busy]
            for busy in (False, True)
        ]
        if not all(speeds):
            continue
        quiet, busy = map(median, speeds)
        equal = len({(row["busy"], row["weights"]) for row in same}) == 2
        lines.append(
            f"| {model} | {settings} | {min(map(len, speeds))} | {quiet:,.0f} images/s "
            f"| {busy:,.0f} images/s | {busy / quiet:.0%} "
            f"| {'yes' if equal else 'NO'} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--models", nargs="+", default=["tutorial", "fast-s"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.table and not options.data:
        parser.error("give --data or --table")
    if options.run:
        print(json.dumps(trained(options.data, options.run)))
        return
    if not options.table:
        options.log = options.log or rawlog.today("busy_epochs")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("busy_epochs"))))


if __name__ == "__main__":
    main()
