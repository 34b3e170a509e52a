"""Compare `peewit train` with transfer learning by hand, within the same minutes.

usage: python benchmarks/transfer.py --photos FOLDER [--sets NAME ...] [--methods NAME ...]
           [--minutes 1 5 15] [--seeds 3] [--work FOLDER] [--log FILE]
       python benchmarks/transfer.py --table [--log FILE]

FOLDER contains a tar file of class folders for each set. They are extracted into the folder
--work; where a set has no test part, a fifth of each class becomes one, chosen by the seed, the
same for all methods. The methods ``keras``, ``fastai`` and ``autogluon`` fine-tune the same
ImageNet weights in plain PyTorch as those libraries recommend (``transfer_by_hand.py``);
``probe`` is logistic regression on frozen features and takes the time it takes. The minutes are
wall-clock time from the start of the process to the tested result. Peewit starts without cached
pictures and features. Each run is a process of its own; runs that are in the log are skipped. Run
it on an otherwise idle machine.
"""

import argparse
import json
import random
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import child
import rawlog

SETS = ("flowers", "trashnet", "grocery", "sign_digits", "caltech101", "weather")
BY_HAND = ("keras", "fastai", "autogluon")
METHODS = ("peewit", *BY_HAND, "probe")
TEST_SHARE = 0.2


def prepared(photos, name, seed, work):
    """Return the folder of a set with the parts train and test; extract and split it if need be."""
    whole = Path(work, name)
    if not whole.is_dir():
        with tempfile.TemporaryDirectory(dir=work) as made:
            with tarfile.open(Path(photos, f"{name}.tar")) as tar:
                tar.extractall(made, filter="data")
            Path(made, name).rename(whole)
    if Path(whole, "test").is_dir():
        return whole
    folder = Path(work, f"{name}-{seed}")
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=work) as made:
            split(whole, Path(made, "split"), seed)
            Path(made, "split").rename(folder)
    return folder


def split(whole, folder, seed):
    """Copy the class folders of ``whole`` into the parts train and test of ``folder``."""
    for classed in sorted(path for path in whole.iterdir() if path.is_dir()):
        files = sorted(path for path in classed.iterdir() if path.is_file())
        random.Random(f"{seed} {classed.name}").shuffle(files)
        count = max(1, round(TEST_SHARE * len(files)))
        for part, chosen in (("test", files[:count]), ("train", files[count:])):
            Path(folder, part, classed.name).mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, Path(folder, part, classed.name))


def by_hand(folder, method, minutes, seed):
    """Train by hand in a process of its own; return the results for the log."""
    script = Path(__file__).with_name("transfer_by_hand.py")
    arguments = json.dumps([str(folder), method, minutes, seed, time.time()])
    done = child.run([sys.executable, script, arguments])
    return done.report | {"seconds": done.seconds, "peak_memory_mib": done.peak_memory_mib}


def peewit(folder, minutes, seed, arguments=()):
    """Run `peewit train FOLDER --minutes M` with empty caches; return the results for the log."""
    from peewit import Run

    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "run")
        command = [sys.executable, "-m", "peewit", "train", folder, "--minutes", minutes]
        command += ["--seed", seed, "--out", path, *arguments]
        done = child.run(command, {"PEEWIT_HOME": str(Path(home, "cache"))})
        run = Run.open(path)
        return {
            "accuracy": run.metrics["accuracy"],
            "validation": [row.get("validation_accuracy") for row in run.history],
            "training_images": run.dataset["images"]["training"],
            "model": run.recipe.model,
            "start": run.recipe.start,
            "image_size": run.preprocessing.height,
            "seconds": done.seconds,
            "peak_memory_mib": done.peak_memory_mib,
        }


def measure(options):
    """Run the measurements that are not in the log; go on after those that fail."""
    Path(options.work).mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for minutes in options.minutes:
            for name in options.sets:
                for method in options.methods:
                    # the probe has no budget: once is enough
                    given = 0 if method == "probe" else minutes
                    what = {"set": name, "minutes": given, "method": method, "seed": seed}
                    if rawlog.find(options.log, **what):
                        continue
                    folder = prepared(options.photos, name, seed, options.work)
                    try:
                        if method == "peewit":
                            found = peewit(folder, minutes, seed)
                        else:
                            found = by_hand(folder, method, given, seed)
                    except SystemExit as error:
                        if isinstance(error.code, int):  # stopped, not failed
                            raise
                        print(error.code, file=sys.stderr)
                        continue
                    rawlog.append(options.log, rawlog.machine() | what | found)
                    print(json.dumps(what | found), flush=True)


def table(rows):
    """Return the Markdown table: accuracy and seconds, means and deviations over the seeds."""
    lines = [
        f"| set | minutes | {' | '.join(METHODS)} |",
        f"|---|---:|{'---:|' * len(METHODS)}",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["set"], row["minutes"], row["method"]), []).append(row)
    for name, minutes in sorted({key[:2] for key in groups if key[2] != "probe"}):
        cells = []
        for method in METHODS:
            given = 0 if method == "probe" else minutes
            cells.append(cell(groups.get((name, given, method), [])))
        lines.append(f"| {name} | {minutes:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(rows):
    """Return mean accuracy, its deviation, and the mean seconds."""
    if not rows:
        return "-"
    accuracy, deviation, count = rawlog.spread(100 * row["accuracy"] for row in rows)
    spread = f" ± {deviation:.1f}" if count > 1 else ""
    return f"{accuracy:.1f} %{spread}, {rawlog.spread(row['seconds'] for row in rows)[0]:.0f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder with a tar file for each set")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 15])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "transfer"))
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.photos:
            parser.error("give --photos or --table")
        options.log = options.log or rawlog.today("transfer")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("transfer"))))


if __name__ == "__main__":
    main()
