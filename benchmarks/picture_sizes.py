"""Measure what the input size that ``--minutes`` chooses for photographs gains over 32 pixels.

usage: python benchmarks/picture_sizes.py PATH [PATH ...] [--minutes 2] [--runs 3] [--sizes 0 32]
           [--log FILE]
       python benchmarks/picture_sizes.py --table [--log FILE]

Each PATH is a folder or an archive of pictures with class folders. Only its training part is used:
a fifth of it is held out and tested, so the table can guide choices of method. Size 0 is the one
that Peewit chooses. Each run is a process of its own, with its own seed; sizes alternate. Each run
appends one line to the log; runs that are in the log are skipped.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

import child
import rawlog


def trained(path, minutes, size, seed):
    """Train on the training part of ``path``; return what was chosen and the held-out accuracy."""
    import peewit

    recipe = peewit.Recipe.preset("fast", minutes=minutes, seed=seed, image_size=size or None)
    with tempfile.TemporaryDirectory() as folder:
        run = peewit.train(
            peewit.load(path).train, recipe, out=Path(folder, "run"), progress=peewit.Callback()
        )
        return {
            "model": run.recipe.model,
            "image_size": run.preprocessing.height,
            "precision": run.recipe.precision,
            "epochs": run.epochs,
            "images": run.metrics["images"],
            "accuracy": run.metrics["accuracy"],
        }


def measure(options):
    """Run the measurements that are not in the log."""
    for seed in range(options.runs):
        for path in options.paths:
            for size in options.sizes:
                what = {
                    "set": Path(path).name.removesuffix(".tar"),
                    "minutes": options.minutes,
                    "size": size,
                    "seed": seed,
                }
                if rawlog.find(options.log, **what):
                    continue
                arguments = json.dumps([path, options.minutes, size, seed])
                done = child.run([sys.executable, __file__, "--run", arguments])
                rawlog.append(options.log, rawlog.machine() | what | done.report)
                print(json.dumps(what | done.report), flush=True)


def table(rows):
    """Return the Markdown table: means and standard deviations over the seeds."""
    lines = [
        "| set | minutes | input size | network | epochs | held-out accuracy | runs |",
        "|---|---:|---|---|---:|---|---:|",
    ]
    keys = sorted({(row["set"], row["minutes"], row["size"]) for row in rows})
    for name, minutes, size in keys:
        key = (name, minutes, size)
        same = [row for row in rows if (row["set"], row["minutes"], row["size"]) == key]
        accuracies = [100 * row["accuracy"] for row in same]
        spread = f" ± {stdev(accuracies):.1f}" if len(same) > 1 else ""
        chosen = ", ".join(sorted({str(row["image_size"]) for row in same}))
        lines.append(
            f"| {name} | {minutes:g} | {chosen}{'' if size else ' (chosen)'} "
            f"| {', '.join(sorted({row['model'] for row in same}))} "
            f"| {mean(row['epochs'] for row in same):.0f} | {mean(accuracies):.1f} %{spread} "
            f"| {len(same)} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", metavar="PATH", help="folders or archives of pictures")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 32], help="0: Peewit's choice")
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(trained(*json.loads(options.run))))
        return
    if not options.table:
        if not options.paths:
            parser.error("give a PATH or --table")
        options.log = options.log or rawlog.today("picture_sizes")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("picture_sizes"))))


if __name__ == "__main__":
    main()
