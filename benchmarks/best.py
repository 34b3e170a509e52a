"""What the recipe `best` comes to, in hours where `--minutes` was measured up to half an hour.

usage: python benchmarks/best.py --data cifar-10-python.tar.gz [--seeds 1]
           [--changes precision=bfloat16 ...] [--log FILE]
       python benchmarks/best.py --table [--log FILE]

Each measurement is the real command in a process of its own, tested once, at its end. --changes are
fields of the recipe: bfloat16 where the processor has it, which a training that counts epochs does
not take by itself. Each run appends one line to the log, and what is there is not run again.
"""

import argparse
from pathlib import Path

import child
import rawlog


def measure(options):
    """Run what the log lacks."""
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
    """Return the Markdown table, a line for each kind of changes."""
    lines = [
        "| changed | test accuracy | with one view | seeds | epochs | took | GFLOP/s "
        "| peak memory |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    groups = {}
    for row in rows:
        changed = ", ".join(f"{name} {value}" for name, value in row["changes"].items())
        groups.setdefault(changed or "nothing", []).append(row)
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
    parser.add_argument("--data", help="CIFAR-10 archive or folder; without it nothing is run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--changes", nargs="*", default=[], help="fields of the recipe: name=value")
    parser.add_argument("--log", type=Path, help="[today's; for --table the newest]")
    parser.add_argument("--table", action="store_true", help="only show what is in the log")
    options = parser.parse_args()
    if options.data and not options.table:
        options.log = options.log or rawlog.today("best")
        measure(options)
    options.log = options.log or rawlog.newest("best")
    rows = rawlog.read(options.log)
    if not rows:
        raise SystemExit(f"nothing has been measured: {options.log}")
    print(table(rows))


if __name__ == "__main__":
    main()
