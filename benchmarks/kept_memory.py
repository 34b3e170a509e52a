"""Measure the gain from keeping freed memory during training (peewit.system.malloc, glibc).

usage: python benchmarks/kept_memory.py --data cifar-10-python.tar.gz [--rounds 5] [--images 6400]

Each measurement is a process that trains one epoch through Peewit's public API. The runs that do
not keep memory set GLIBC_TUNABLES to a harmless value: Peewit takes that as the user's choice and
does not configure the allocator. The order alternates between rounds, and ratios are taken within
each round. The raw log goes to benchmarks/results/.
"""

import argparse
import json
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
UNCONFIGURED = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
FORMS = {
    "kernels": {"PEEWIT_KERNELS": "on"},
    "without kernels": {"PEEWIT_KERNELS": "off"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CIFAR-10 archive or folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=6_400)
    options = parser.parse_args()
    train = peewit.load("cifar10", data=options.data).train.take(np.arange(options.images))
    command = [sys.executable, HERE / "peewit_tutorial.py"]
    head = rawlog.machine()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), train.images)
        np.save(Path(folder, "labels.npy"), train.labels)
        for number in range(options.rounds):
            for form, environment in FORMS.items():
                pair = [("kept", {}), ("not kept", UNCONFIGURED)]
                for memory, extra in pair if number % 2 else reversed(pair):
                    found = child.run([*command, folder], environment | extra).report
                    rows.append({"round": number + 1, "form": form, "memory": memory, **found})
    lines = [
        f"{'':<18}{'images/s kept':>14}{'not kept':>10}{'ratio: median (min - max)':>28}"
        f"{'page faults per step':>21}{'not kept':>10}"
    ]
    for form in FORMS:
        kept, not_kept = (
            [row for row in rows if row["form"] == form and row["memory"] == memory]
            for memory in ("kept", "not kept")
        )
        rate = "images_per_second"
        ratios = [a[rate] / b[rate] for a, b in zip(kept, not_kept, strict=True)]
        faults = [statistics.median(r["page_faults_a_step"] for r in f) for f in (kept, not_kept)]
        lines.append(
            f"{form:<18}{statistics.mean(r[rate] for r in kept):14.0f}"
            f"{statistics.mean(r[rate] for r in not_kept):10.0f}"
            f"{statistics.median(ratios):13.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
            f"{faults[0]:21.0f}{faults[1]:10.0f}"
        )
    table = "\n".join(lines)
    raw = "\n".join(json.dumps(row) for row in rows)
    log = HERE / "results" / f"kept_memory-{time.strftime('%Y-%m-%d-%H%M')}.txt"
    log.write_text(f"{json.dumps(head, indent=1)}\n\n{table}\n\n{raw}\n")
    print(table)


if __name__ == "__main__":
    main()
