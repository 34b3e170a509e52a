"""Measure the test accuracy of `peewit train cifar10 --minutes M` for several M and seeds.

usage: python benchmarks/frontier.py --data cifar-10-python.tar.gz
           [--minutes 1 2 5 10 15 30] [--seeds 5 5 5 3 3 3] [--log FILE]
       python benchmarks/frontier.py --table [--log FILE]
       python benchmarks/frontier.py --plot docs/images/frontier.png [--log FILE]
           [--airbench FILE] [--tutorial FILE]

Each measurement runs `peewit train` in its own process, and M is compared with the command's wall
time. The runs are sequential: all M with the first seed, then all with the second and so on, so an
interrupted benchmark has complete rounds. Each run appends one line to the log; runs that are in
the log are skipped, so the same command resumes. --seeds is the number of seeds, one for all M or
one for each.

--table prints the means as Markdown. --plot draws them together with the TensorFlow tutorial, the
budgets measured interleaved with it, and airbench94 with Muon, if their logs exist
(time_to_accuracy.py, airbench_reference.py).
"""

import argparse
from pathlib import Path

import child
import rawlog


def plan(minutes, seeds):
    """Return all (M, seed), one seed after the other; ``seeds`` is the number of seeds per M."""
    return [
        (m, seed)
        for seed in range(max(seeds))
        for m, count in zip(minutes, seeds, strict=True)
        if seed < count
    ]


def summary(rows):
    """Return one dict per M, in ascending order: means and deviations over the seeds."""
    found = []
    for minutes in sorted({row["minutes"] for row in rows}):
        same = [row for row in rows if row["minutes"] == minutes]
        accuracy, deviation, count = rawlog.spread(100 * row["accuracy"] for row in same)
        single, single_deviation, _ = rawlog.spread(
            100 * row["single_view_accuracy"] for row in same
        )
        late = [row["late_seconds"] for row in same]
        found.append(
            {
                "minutes": minutes,
                "accuracy": accuracy,
                "deviation": deviation,
                "single": single,
                "single_deviation": single_deviation,
                "count": count,
                "models": ", ".join(sorted({row["model"] for row in same})),
                "epochs": mean(row["epochs"] for row in same),
                "seconds": mean(row["wall_seconds"] for row in same),
                "latest": max(late),
                "earliest": min(late),
                "gflops": mean(row["gflops"] for row in same),
                "share": mean(row["share_of_best"] for row in same),
                "memory": max((row["peak_memory_mib"] or 0 for row in same), default=0),
            }
        )
    return found


def mean(values):
    """Return the mean of the values that are not None, or None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def table(rows):
    """Return the Markdown table."""
    lines = [
        "| minutes | test accuracy | single view | seeds | network | epochs | wall time | "
        "GFLOP/s (share of best) | peak memory |",
        "|---:|---|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in summary(rows):
        rate = f"{row['gflops']:.0f}" if row["gflops"] else "?"
        share = f"{row['share']:.0%}" if row["share"] else "?"
        lines.append(
            f"| {row['minutes']:g} | {row['accuracy']:.2f} % ± {row['deviation']:.2f} "
            f"| {row['single']:.2f} % ± {row['single_deviation']:.2f} | {row['count']} "
            f"| {row['models']} | {row['epochs']:.1f} | {row['seconds']:.0f} s "
            f"| {rate} ({share}) | {row['memory']:,.0f} MiB |"
        )
    return "\n".join(lines)


def plot(rows, path, airbench=(), tutorial=()):
    """Plot accuracy against minutes, with the reference results.

    Parameters
    ----------
    rows : list of dict
        Rows of this benchmark's log.
    path : path
        The PNG to write.
    airbench : list of dict
        Rows of airbench_reference.py.
    tutorial : list of dict
        Rows of the TensorFlow tutorial: seconds and accuracy.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from peewit.plots.style import FAINT, INK, SERIES, drawing

    ours, theirs = SERIES[0], SERIES[1]
    points = summary(rows)
    reference, augmented = airbench_points(airbench)
    old = tutorial_point(tutorial)
    drawn = [(p["minutes"], p["accuracy"]) for p in points] + reference
    drawn += [point for point in (augmented, old and old[:2]) if point]
    times, accuracies = zip(*drawn, strict=True)
    with drawing(path, 7.2, 4.4) as figure:
        axes = figure.add_axes((0.08, 0.125, 0.89, 0.785))
        axes.set_xscale("log")
        if reference:
            axes.plot(*zip(*reference, strict=True), color=theirs, marker="s", markersize=3.5,
                      linewidth=1.1)  # fmt: skip
            axes.annotate(
                "airbench94 with Muon in PyTorch\nafter each of its 8 epochs"
                + ("; ★ at the end\nwith test-time augmentation" if augmented else ""),
                reference[0],
                xytext=(12, 3),
                textcoords="offset points",
                va="top",
                color=theirs,
            )
        if augmented:
            axes.plot(*augmented, color=theirs, marker="*", markersize=11, zorder=4)
            axes.annotate(f"{augmented[1]:.1f}", augmented, xytext=(7, -14), color=theirs,
                          textcoords="offset points", fontweight="bold")  # fmt: skip
        if old:
            axes.errorbar(*old, color=INK, marker="D", markersize=6, capsize=3, zorder=3)
            axes.annotate(f"the Keras tutorial\nin TensorFlow 2.4.4: {old[1]:.1f}", old[:2],
                          xytext=(-40, -9), textcoords="offset points", va="top",
                          color=INK)  # fmt: skip
        axes.errorbar(
            [point["minutes"] for point in points],
            [point["accuracy"] for point in points],
            yerr=[point["deviation"] for point in points],
            color=ours,
            marker="o",
            markersize=5,
            capsize=3,
            linewidth=1.8,
            zorder=5,
        )
        for point in points:
            axes.annotate(f"{point['accuracy']:.1f}",
                          (point["minutes"], point["accuracy"] + point["deviation"]),
                          xytext=(0, 6), textcoords="offset points", ha="center", color=ours,
                          fontweight="bold")  # fmt: skip
        low, high = min(times) / 1.25, max(times) * 1.35
        ticks = [t for t in (0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120) if low <= t <= high]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(low, high)
        axes.set_ylim(min(accuracies) - 5.5, max(accuracies) + 3.5)
        axes.set_xlabel("minutes (peewit: wall time of the whole command)", loc="left")
        axes.set_title(
            "Test accuracy in % of peewit train cifar10 --minutes M (JPEG copy of CIFAR-10)"
        )
        row = rows[-1]
        axes.text(1, -0.105, f"{row['processor']}, {row['cores']} cores, {row['vector_features']}",
                  transform=axes.transAxes, ha="right", va="top", color=FAINT,
                  fontsize=7.5)  # fmt: skip


def airbench_points(rows):
    """Return (minutes, accuracy) after each epoch and, with six views, at the end.

    Values are means over the seeds. Minutes include training and the test with six views, but not
    the tests after each epoch.
    """
    line = []
    for epoch in sorted({row["epoch"] for row in rows}):
        same = [row for row in rows if row["epoch"] == epoch]
        line.append(
            (mean(r["seconds"] for r in same) / 60, 100 * mean(r["accuracy"] for r in same))
        )
    last = [row for row in rows if row["epoch"] == len(line) and "tta_accuracy" in row]
    if not last:
        return line, None
    minutes = mean(row["seconds"] + row["tta_seconds"] for row in last) / 60
    return line, (minutes, 100 * mean(row["tta_accuracy"] for row in last))


def tutorial_point(rows):
    """Return the tutorial's mean minutes, accuracy and deviation, or None without runs."""
    if not rows:
        return None
    accuracy, deviation, _ = rawlog.spread(100 * row["accuracy"] for row in rows)
    return mean(row["seconds"] for row in rows) / 60, accuracy, deviation


def measure(options):
    """Run the measurements that are not in the log."""
    seeds = options.seeds * len(options.minutes) if len(options.seeds) == 1 else options.seeds
    if len(seeds) != len(options.minutes):
        raise SystemExit("--seeds: give one number, or one for each of --minutes")
    there = {(row["minutes"], row["seed"]) for row in rawlog.read(options.log)}
    for minutes, seed in plan(options.minutes, seeds):
        if (minutes, seed) in there:
            continue
        row = child.train(options.data, seed, ["--minutes", f"{minutes:g}"])
        late = row["wall_seconds"] - 60 * minutes
        rawlog.append(options.log, {"minutes": minutes, "late_seconds": late, **row})
        print(
            f"{minutes:g} min, seed {seed}: {row['accuracy']:.2%} ({row['model']}), "
            f"{abs(late):.1f} s {'late' if late > 0 else 'early'}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder (default: run nothing)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 5, 10, 15, 30])
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 5, 5, 3, 3, 3])
    parser.add_argument("--log", type=Path, help="(default: today's; without --data the newest)")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--airbench", type=Path, default=rawlog.newest("airbench_reference"))
    parser.add_argument("--tutorial", type=Path, default=rawlog.newest("time_to_accuracy"))
    options = parser.parse_args()
    if options.data:
        options.log = options.log or rawlog.today("frontier")
        measure(options)
    options.log = options.log or rawlog.newest("frontier")
    rows = rawlog.read(options.log)
    if not rows:
        raise SystemExit(f"no measurements in {options.log}")
    if options.table or options.data:
        print(table(rows))
    if options.plot:
        in_turns = rawlog.read(options.tutorial)
        tutorial = [row for row in in_turns if row["kind"] == "tensorflow"]
        short = [row for row in in_turns if row["kind"] == "peewit" and not row["same"]]
        plot([*short, *rows], options.plot, rawlog.read(options.airbench), tutorial)


if __name__ == "__main__":
    main()
