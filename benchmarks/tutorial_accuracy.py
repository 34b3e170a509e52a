"""Measure the test accuracy of the recipe `tutorial` over several seeds: mean and deviation.

usage: python benchmarks/tutorial_accuracy.py --data cifar-10-python.tar.gz [--seeds 3]

Each seed is a complete run: a tenth of the training images held out, ten epochs, one test at the
end. The raw log, including each run's history, goes to benchmarks/results/.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import rawlog

import peewit


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CIFAR-10 archive or folder")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    splits = peewit.load("cifar10", data=options.data)
    head = rawlog.machine() | {"data": [str(note) for note in splits.notes]}
    head["data"] = [note.replace(str(Path(options.data).parent), "") for note in head["data"]]
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            recipe = peewit.Recipe.preset("tutorial", seed=seed)
            began = time.perf_counter()
            run = peewit.train(splits.train, recipe, test=splits.test, out=Path(folder, "run"))
            rows.append(
                {
                    "seed": seed,
                    "seconds": time.perf_counter() - began,
                    "test": {key: run.metrics[key] for key in ("accuracy", "loss", "images")},
                    "history": run.history,
                }
            )
    accuracies = [100 * row["test"]["accuracy"] for row in rows]
    spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
    table = (
        f"test accuracy {statistics.mean(accuracies):.2f} % +- {spread:.2f} "
        f"(n = {len(rows)} seeds: "
        f"{', '.join(f'{accuracy:.2f}' for accuracy in accuracies)}), "
        f"{statistics.mean(row['seconds'] for row in rows):.0f} s each"
    )
    raw = "\n".join(json.dumps(row) for row in rows)
    log = Path(__file__).parent / "results" / f"tutorial_accuracy-{time.strftime('%Y-%m-%d')}.txt"
    log.write_text(f"{json.dumps(head, indent=1)}\n\n{table}\n\n{raw}\n")
    print(table)


if __name__ == "__main__":
    main()
