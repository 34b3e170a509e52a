"""Compare one epoch of the tutorial in TensorFlow 2.4.4, current TensorFlow and Peewit.

usage: python benchmarks/tutorial_vs_tensorflow.py --data cifar-10-python.tar.gz
           --tensorflow24 PYTHON --tensorflow PYTHON [--rounds 5] [--images 50000]

The two PYTHONs are interpreters of virtual environments with the two versions of TensorFlow:

    python3.8  -m venv tf24 && tf24/bin/pip install tensorflow-cpu==2.4.4 'protobuf<3.21'
    python3.11 -m venv tf   && tf/bin/pip install tensorflow-cpu

Each measurement is a process that trains one epoch and reports images per second and peak memory. A
round measures every engine once, in an order that rotates from round to round, so that changes in
the machine's speed affect all of them. Ratios are taken within each round. The raw log, with the
machine and all versions, goes to benchmarks/results/.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import child
import numpy as np
import rawlog

import peewit

HERE = Path(__file__).parent
BASE = "TensorFlow 2.4.4"


def engines(options):
    """Return the command and environment variables of each engine, by name."""
    keras, own = HERE / "keras_tutorial.py", HERE / "peewit_tutorial.py"
    return {
        BASE: ([options.tensorflow24, keras], {}),
        "TensorFlow newest, Keras 3": ([options.tensorflow, keras], {}),
        "Peewit": ([sys.executable, own], {}),
        "Peewit without its kernels": ([sys.executable, own], {"PEEWIT_KERNELS": "off"}),
    }


def summary(rows, names):
    """Return the table: mean and deviation of each engine, and ratios within the rounds."""
    by_engine = {name: [row for row in rows if row["engine"] == name] for name in names}
    rate = {n: [row["images_per_second"] for row in r] for n, r in by_engine.items()}
    memory = {n: [row["peak_memory_mib"] or 0 for row in r] for n, r in by_engine.items()}
    lines = [
        f"{'engine':<28} {'images/s':>15} {'ratio to 2.4.4: median (min - max)':>36} "
        f"{'peak MiB':>9} {'ratio':>6}"
    ]
    for name in names:
        ratios = [a / b for a, b in zip(rate[name], rate[BASE], strict=True)]
        spread = statistics.stdev(rate[name]) if len(ratios) > 1 else 0.0
        peak = statistics.mean(memory[name])
        lines.append(
            f"{name:<28} {statistics.mean(rate[name]):7.0f} +- {spread:4.0f} "
            f"{statistics.median(ratios):20.2f} ({min(ratios):.2f} - {max(ratios):.2f}) "
            f"{peak:9.0f} {peak / statistics.mean(memory[BASE]):6.2f}"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CIFAR-10 archive or folder")
    parser.add_argument("--tensorflow24", required=True, metavar="PYTHON")
    parser.add_argument("--tensorflow", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=50_000)
    options = parser.parse_args()

    train = peewit.load("cifar10", data=options.data).train.take(np.arange(options.images))
    names = engines(options)
    log = HERE / "results" / f"tutorial_vs_tensorflow-{time.strftime('%Y-%m-%d-%H%M')}.jsonl"
    head = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "rounds": options.rounds,
        "images": options.images,
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
        **rawlog.machine(),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder, log.open("w") as file:
        np.save(Path(folder, "images.npy"), train.images)
        np.save(Path(folder, "labels.npy"), train.labels)
        print(json.dumps(head), file=file, flush=True)
        for number in range(options.rounds):
            turn = number % len(names)
            for name in [*names, *names][turn : turn + len(names)]:
                command, environment = names[name]
                found = child.run([*command, folder], environment).report
                row = {"round": number + 1, "engine": name, **found}
                rows.append(row)
                print(json.dumps(row), file=file, flush=True)
                print(f"round {number + 1}: {name}: {row['images_per_second']:.0f} images/s")
    table = summary(sorted(rows, key=lambda row: row["round"]), names)
    log.with_suffix(".txt").write_text(f"{json.dumps(head, indent=1)}\n\n{table}\n")
    print(f"\n{table}\n\nraw log: {log.name}")


if __name__ == "__main__":
    main()
