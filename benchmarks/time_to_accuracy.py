"""Measure how soon Peewit matches the tutorial in TensorFlow 2.4.4, and airbench94 with Muon.

usage: python benchmarks/time_to_accuracy.py --data cifar-10-python.tar.gz --tensorflow24 PYTHON
           [--rounds 3] [--minutes 0.4 0.5] [--log FILE]
       python benchmarks/time_to_accuracy.py --report [--log FILE] [--frontier FILE]
           [--airbench FILE]

A round is the tutorial's ten epochs in TensorFlow 2.4.4 (tutorial_vs_tensorflow.py shows how to
create PYTHON's environment), then `peewit train cifar10 --minutes M` for every M, then with M equal
to the time the tutorial has just taken. All run in their own processes, one after the other. The
number of the round is the seed. Each measurement appends one line to the log; measurements that are
in the log are skipped, so the same command resumes after an interruption.

The report also includes the budgets of frontier.py and the results of airbench_reference.py. A
target counts as reached by the smallest M whose mean over the seeds reaches it. Like is compared
with like: the whole command with the whole, training alone with training alone, and accuracy with
or without test-time augmentation with the same.
"""

import argparse
import math
import tempfile
from pathlib import Path

import child
import numpy as np
import rawlog

HERE = Path(__file__).parent
EPOCHS = 10  # of the tutorial
NOISE = 0.0025  # smaller differences between means of few seeds are noise


def measure(options):
    """Run the measurements that are not in the log."""
    for number in range(options.rounds):
        tutorial = rawlog.find(options.log, kind="tensorflow", round=number)
        if tutorial is None:
            tutorial = {"kind": "tensorflow", "round": number, **_tensorflow(options)}
            _tell(options.log, tutorial)
        # in hundredths of a minute, rounded down: never more than the tutorial took
        same_time = math.floor(tutorial["seconds"] / 60 * 100) / 100
        budgets = [(minutes, False) for minutes in options.minutes] + [(same_time, True)]
        for minutes, at_tutorial in budgets:
            what = {"kind": "peewit", "round": number, "minutes": minutes, "same": at_tutorial}
            if rawlog.find(options.log, **what) is None:
                row = child.train(options.data, number, ["--minutes", f"{minutes:g}"])
                late = row["wall_seconds"] - 60 * minutes
                _tell(options.log, {**what, "late_seconds": late, **row})


def _tell(log, row):
    rawlog.append(log, row)
    budget = f" --minutes {row['minutes']:g}" if "minutes" in row else ""
    print(f"round {row['round'] + 1}: {row['kind']}{budget}: {row['accuracy']:.2%}, "
          f"{row['wall_seconds']:.0f} s", flush=True)  # fmt: skip


def _tensorflow(options):
    """Run the tutorial in TensorFlow; ``seconds`` counts only its ten epochs."""
    import peewit

    splits = peewit.load("cifar10", data=options.data)
    with tempfile.TemporaryDirectory() as folder:
        for prefix, data in (("", splits.train), ("test_", splits.test)):
            np.save(Path(folder, f"{prefix}images.npy"), data.images)
            np.save(Path(folder, f"{prefix}labels.npy"), data.labels)
        command = [options.tensorflow24, HERE / "keras_tutorial.py", folder, EPOCHS]
        done = child.run(command)
    return rawlog.machine() | done.report | {"wall_seconds": done.seconds}


def budgets(rows):
    """Return the means of Peewit's measurements for each budget, in ascending order.

    Parameters
    ----------
    rows : list of dict
        Rows of this benchmark and of frontier.py.
    """
    ours = [row for row in rows if row.get("kind", "peewit") == "peewit" and not row.get("same")]
    found = []
    for minutes in sorted({row["minutes"] for row in ours}):
        same = [row for row in ours if row["minutes"] == minutes]
        found.append(
            {
                "minutes": minutes,
                "count": len(same),
                **{
                    name: rawlog.spread(row[name] for row in same)[0]
                    for name in (
                        "accuracy",
                        "single_view_accuracy",
                        "wall_seconds",
                        "training_seconds",
                    )
                },
            }
        )
    return found


def reached(measured, name, target):
    """Return the smallest budget whose mean ``name`` reaches ``target``, or None."""
    return next((budget for budget in measured if budget[name] >= target), None)


def against_tutorial(rows, measured):
    """Return the lines that compare with the tutorial."""
    theirs = [row for row in rows if row["kind"] == "tensorflow"]
    if not theirs:
        return ["no measurements of the tutorial in TensorFlow"]
    target, deviation, count = rawlog.spread(row["accuracy"] for row in theirs)
    epochs = rawlog.spread(row["seconds"] for row in theirs)[0]
    whole = rawlog.spread(row["wall_seconds"] for row in theirs)[0]
    memory = max(row["peak_memory_mib"] or 0 for row in theirs)
    lines = [
        f"TensorFlow 2.4.4: {target:.2%} ± {100 * deviation:.2f} ({count} runs) after "
        f"{epochs:.0f} s of training and validation, {whole:.0f} s in total, {memory:,.0f} MiB",
        *_first(measured, "accuracy", target, whole, epochs, "{:.1f} times faster", invert=True),
    ]
    pairs = [
        (row, tutorial)
        for row in rows
        for tutorial in theirs
        if row.get("same") and row["round"] == tutorial["round"]
    ]
    if pairs:
        ours, spread, count = rawlog.spread(row["accuracy"] for row, _ in pairs)
        ratios = [(1 - row["accuracy"]) / (1 - other["accuracy"]) for row, other in pairs]
        ratio, ratio_spread, _ = rawlog.spread(ratios)
        took = rawlog.spread(row["wall_seconds"] for row, _ in pairs)[0]
        lines.append(
            f"  Peewit in the same time ({took:.0f} s for the whole command): {ours:.2%} ± "
            f"{100 * spread:.2f} ({count} seeds); error {1 - ours:.2%} vs. {1 - target:.2%}: "
            f"{ratio:.3f} ± {ratio_spread:.3f} times"
        )
    return lines


def against_airbench(rows, measured):
    """Return the lines that compare with airbench94 with Muon."""
    if not rows:
        return ["no measurements of airbench94 with Muon"]
    last = max(row["epoch"] for row in rows)
    ended = [row for row in rows if row["epoch"] == last]
    training = rawlog.spread(row["seconds"] for row in ended)[0]
    lines = []
    for name, theirs, test, words in (
        ("single_view_accuracy", "accuracy", "test_seconds", "single view"),
        ("accuracy", "tta_accuracy", "tta_seconds", "test-time augmentation"),
    ):
        target, deviation, count = rawlog.spread(row[theirs] for row in ended)
        whole = rawlog.spread(row["prepare_seconds"] + row["seconds"] + row[test] for row in ended)[
            0
        ]
        lines += [
            f"airbench94 with Muon, {words}: {target:.2%} ± {100 * deviation:.2f} ({count} seeds) "
            f"after {training:.0f} s of training, {whole:.0f} s in total",
            *_first(measured, name, target, whole, training, "{:.2f} times its time"),
        ]
    rate = rawlog.spread(row["gflops"] for row in rows)[0]
    share = rawlog.spread(row["share_of_best"] for row in rows)[0]
    memory = max(row["peak_memory_mib"] or 0 for row in rows)
    lines.append(
        f"  rate {rate:.0f} GFLOP/s, {share:.0%} of the best; peak memory {memory:,.0f} MiB"
    )
    return lines


def _first(measured, name, target, whole, training, words, invert=False):
    """Return the lines on the budget that reaches ``target``, with ratios of time."""
    first = reached(measured, name, target)
    if first is None:
        best = max((budget[name] for budget in measured), default=0)
        return [f"  not reached by any measured budget; the best reached {best:.2%}"]
    ours, ours_training = first["wall_seconds"], first["training_seconds"]
    ratios = [ours / whole, ours_training / training, ours / training]
    if invert:
        ratios = [1 / ratio for ratio in ratios]
    shown = [words.format(ratio) for ratio in ratios]
    near = first[name] - target < NOISE
    return [
        f"  reached with --minutes {first['minutes']:g}: {first[name]:.2%} ({first['count']} seeds)"
        + (", within noise" if near else ""),
        f"  whole command: {ours:.1f} s, {shown[0]}",
        f"  training alone: {ours_training:.1f} s, {shown[1]}",
        f"  Peewit's whole command vs. its training alone: {shown[2]}",
    ]


def report(rows, frontier, airbench):
    """Return the whole report."""
    measured = budgets([*rows, *frontier])
    lines = [*against_tutorial(rows, measured), "", *against_airbench(airbench, measured), ""]
    lines += [
        "| minutes | seeds | test accuracy | single view | whole command | training alone |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for budget in measured:
        lines.append(
            f"| {budget['minutes']:g} | {budget['count']} | {budget['accuracy']:.2%} "
            f"| {budget['single_view_accuracy']:.2%} | {budget['wall_seconds']:.1f} s "
            f"| {budget['training_seconds']:.1f} s |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--tensorflow24", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.4, 0.5])
    parser.add_argument("--log", type=Path, help="(default: today's; with --report the newest)")
    parser.add_argument("--report", action="store_true", help="print the report and run nothing")
    parser.add_argument("--frontier", type=Path, default=rawlog.newest("frontier"))
    parser.add_argument("--airbench", type=Path, default=rawlog.newest("airbench_reference"))
    options = parser.parse_args()
    if not options.report:
        if not (options.data and options.tensorflow24):
            parser.error("give --data and --tensorflow24, or --report")
        options.log = options.log or rawlog.today("time_to_accuracy")
        measure(options)
    rows = rawlog.read(options.log or rawlog.newest("time_to_accuracy"))
    print(report(rows, rawlog.read(options.frontier), rawlog.read(options.airbench)))


if __name__ == "__main__":
    main()
