"""Measure the test accuracy of the recipe `best`, which trains longer than any budget measured.

usage: python benchmarks/best.py --data cifar-10-python.tar.gz [--seeds 1]
           [--changes precision=bfloat16 ...] [--log FILE]
       python benchmarks/best.py --table [--log FILE]

Each measurement runs `peewit train` in its own process; the test set is used once, at the end.
--changes overrides fields of the recipe, such as precision=bfloat16, which training by epochs does
not choose by itself. Each run appends one line to the log; runs that are in the log are skipped.
"""

import argparse
from pathlib import Path

import child
import rawlog


def measure(options):
    """Run the measurements that are not in the log."""
    changes = rawlog.changes(options.changes)
    for seed in range(options.seeds):
        wanted = {"seed": seed, "changes": changes}
        if rawlog.find(options.log, **wanted):
            continue
        arguments = ["--recipe", "best"]
        for name, value in changes.items():
            arguments += [f"--{name.replace('_', '-')}", value]
        row = child.train(options.data, seed, arguments)
        rawlog.append(options.log, wanted | row)
        print(f"seed {seed}: {row['accuracy']:.2%} in {row['wall_seconds']:.0f} s", flush=True)


def table(rows):
    """Return a Markdown table with one row for each set of changes."""
    lines = [
        "| changes | test accuracy | single view | seeds | epochs | time | GFLOP/s | peak memory |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    groups = {}
    for row in rows:
        changed = ", ".join(f"{name} {value}" for name, value in row["changes"].items())
        groups.setdefault(changed or "none", []).append(row)
    for changed, same in groups.items():
        accuracy, deviation, count = rawlog.spread(100 * row["accuracy"] for row in same)
        single, single_deviation, _ = rawlog.spread(
            100 * row["single_view_accuracy"] for row in same
        )
        minutes, _, _ = rawlog.spread(row["wall_seconds"] / 60 for row in same)
        gflops, _, _ = rawlog.spread(row["gflops"] for row in same)
        peaks = [row["peak_memory_mib"] for row in same if row["peak_memory_mib"]]
        lines.append(
            f"| {changed} | {accuracy:.2f} % ± {deviation:.2f} "
            f"| {single:.2f} % ± {single_deviation:.2f} | {count} | {same[0]['epochs']:.0f} "
            f"| {minutes:.0f} min | {gflops:.0f} | {max(peaks, default=0):,.0f} MiB |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder (default: only print the table)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--changes", nargs="*", default=[], help="recipe fields to override: name=value"
    )
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if options.data and not options.table:
        options.log = options.log or rawlog.today("best")
        measure(options)
    options.log = options.log or rawlog.newest("best")
    rows = rawlog.read(options.log)
    if not rows:
        raise SystemExit(f"no measurements in {options.log}")
    print(table(rows))


if __name__ == "__main__":
    main()
