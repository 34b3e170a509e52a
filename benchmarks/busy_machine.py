"""Check that `peewit train cifar10 --minutes M` ends on time under background load.

usage: python benchmarks/busy_machine.py --data cifar-10-python.tar.gz [--minutes 1 5] [--runs 3]
           [--log FILE]
       python benchmarks/busy_machine.py --table [--log FILE]

Each run is `peewit train` in its own process. From the middle of the budget to the end of the
command, one busy loop runs for every two cores. Runs without load alternate with these for
comparison. Each run appends one line to the log; runs that are in the log are skipped. A run is on
time if it ends at most 5 s late and at most 5 % of M early.
"""

import argparse
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import child
import rawlog

LATE_SECONDS, EARLY_SHARE = 5.0, 0.05


@contextmanager
def burning(after, processes):
    """Run ``processes`` busy loops from ``after`` seconds on until the block ends."""
    burners = []

    def begin():
        burners.extend(
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
        )

    timer = threading.Timer(after, begin)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for burner in burners:
            burner.kill()
            burner.wait()


def on_time(minutes, wall_seconds):
    """Return whether a command of ``wall_seconds`` kept to its budget."""
    late = wall_seconds - 60 * minutes
    return -EARLY_SHARE * 60 * minutes <= late <= LATE_SECONDS


def table(rows):
    """Return the Markdown table."""
    lines = [
        "| minutes | background load | runs | latest by | earliest by | on time | test accuracy |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for minutes, busy in sorted({(row["minutes"], row["busy"]) for row in rows}):
        same = [row for row in rows if (row["minutes"], row["busy"]) == (minutes, busy)]
        late = [row["late_seconds"] for row in same]
        accuracy, deviation, count = rawlog.spread(100 * row["accuracy"] for row in same)
        kept = sum(on_time(minutes, row["wall_seconds"]) for row in same)
        lines.append(
            f"| {minutes:g} | {'from half-time on' if busy else 'none'} | {count} "
            f"| {max(0.0, *late):.1f} s | {max(0.0, *(-x for x in late)):.1f} s "
            f"| {kept} of {count} | {accuracy:.2f} % ± {deviation:.2f} |"
        )
    return "\n".join(lines)


def measure(options):
    """Run the measurements that are not in the log."""
    there = {(row["minutes"], row["seed"], row["busy"]) for row in rawlog.read(options.log)}
    burners = max(1, (os.cpu_count() or 1) // 2)
    for seed in range(options.runs):
        for minutes in options.minutes:
            for busy in (True, False):
                if (minutes, seed, busy) in there:
                    continue
                with burning(30 * minutes, burners if busy else 0):
                    row = child.train(options.data, seed, ["--minutes", f"{minutes:g}"])
                late = row["wall_seconds"] - 60 * minutes
                what = {"minutes": minutes, "busy": busy, "burners": burners if busy else 0}
                rawlog.append(options.log, {**what, "late_seconds": late, **row})
                print(f"{minutes:g} min, seed {seed}, {'busy' if busy else 'quiet'}: "
                      f"{late:+.1f} s, {row['accuracy']:.2%}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.data:
            parser.error("give --data or --table")
        options.log = options.log or rawlog.today("busy_machine")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("busy_machine"))))


if __name__ == "__main__":
    main()
