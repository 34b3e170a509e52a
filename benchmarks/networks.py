"""Measure which fast network is best for which budget, on held-out training images.

usage: python benchmarks/networks.py --data cifar-10-python.tar.gz
           [--models fast-xs fast-s fast-m fast-l fast-xl] [--minutes 0.5 1 2 5 10 20] [--seeds 1]
           [--changes batch_size=500 lr=0.24 ...] [--log FILE]
       python benchmarks/networks.py --table [--log FILE]

`--minutes` picks a network by such measurements (peewit.training.budget.frontier). Each run trains
on nine tenths of CIFAR-10's training images for a number of minutes, including loading and
measuring, and validates on the last tenth, which is the same for all. The test set is not used.
--changes overrides fields of the recipe and is recorded in the log. Runs in the log are skipped.
"""

import argparse
import tempfile
import time
from pathlib import Path

import rawlog

import peewit
from peewit.models.registry import FAST_WIDTHS


def measure(training, model, minutes, seed, changes):
    """Train once and return the log row."""
    recipe = peewit.Recipe.preset(
        "fast", **{"validation_fraction": 0.1, **changes}, model=model, minutes=minutes, seed=seed
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = peewit.train(training, recipe, out=Path(folder, "run"), progress=peewit.Callback())
    last = run.history[-1]
    return {
        "model": model,
        "minutes": minutes,
        "seed": seed,
        "changes": changes,
        "validation_accuracy": last["validation_accuracy"],
        "validation_loss": last["validation_loss"],
        "training_seconds": run.metrics["training_seconds"],
        "seconds": time.perf_counter() - began,
        **{name: last[name] for name in ("images", "flops", "gflops", "share_of_best")},
        **rawlog.machine(),
    }


def table(rows):
    """Return the Markdown table, grouped by budget."""
    lines = [
        "| minutes | network | changes | held-out accuracy | seeds | images | TFLOP | GFLOP/s |",
        "|---:|---|---|---|---:|---:|---:|---:|",
    ]
    groups = {}
    for row in rows:
        changes = ", ".join(f"{name} {value}" for name, value in row["changes"].items())
        groups.setdefault((row["minutes"], row["flops"] / row["images"], changes), []).append(row)
    for (minutes, _, changes), same in sorted(groups.items()):
        accuracy, deviation, count = rawlog.spread(100 * r["validation_accuracy"] for r in same)
        images, flops, rate = (
            rawlog.spread(r[name] for r in same)[0] for name in ("images", "flops", "gflops")
        )
        lines.append(
            f"| {minutes:g} | {same[0]['model']} | {changes} | {accuracy:.2f} % ± {deviation:.2f} "
            f"| {count} | {images:,.0f} | {flops / 1e12:.1f} | {rate:.0f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--models", nargs="+", default=list(FAST_WIDTHS))
    parser.add_argument("--minutes", nargs="+", type=float, default=[0.5, 1, 2, 5, 10, 20])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--changes", nargs="*", default=[], help="recipe fields to override: name=value"
    )
    parser.add_argument("--log", type=Path, default=rawlog.today("networks"))
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.data:
            parser.error("give --data or --table")
        changes = rawlog.changes(options.changes)
        training = peewit.load("cifar10", data=options.data).train
        for seed in range(options.seeds):
            for minutes in options.minutes:
                for model in options.models:
                    wanted = {"model": model, "minutes": minutes, "seed": seed, "changes": changes}
                    if rawlog.find(options.log, **wanted):
                        continue
                    row = measure(training, **wanted)
                    rawlog.append(options.log, row)
                    print(f"{minutes:g} {model}: {row['validation_accuracy']:.2%}", flush=True)
    print(table(rawlog.read(options.log)))


if __name__ == "__main__":
    main()
