"""Compare the ways to fit pictures into a square input: crop, pad and stretch.

usage: python benchmarks/fit.py --photos FOLDER [--sets NAME ...] [--size 48] [--epochs 20]
           [--model fast-s] [--seeds 3] [--log FILE]
       python benchmarks/fit.py --table [--log FILE]

FOLDER contains a tar file of class folders for each set. Where a set has a folder train, only its
pictures are used. A fifth of them, chosen by the seed, is held out, the same for each fit; in the
accuracy a distorted or cropped picture counts like any other. All runs of a set have the same
number of epochs. Each training appends one line to the log; runs that are in the log are skipped.
"""

import argparse
import tarfile
import time
from pathlib import Path, PurePosixPath

import numpy as np
import rawlog
import torch
from PIL import Image
from tried import train

from peewit import Dataset, PeewitError, Recipe
from peewit.evaluation.metrics import evaluate
from peewit.images.fitting import FITS, fit_picture
from peewit.images.reader import read_picture
from peewit.report.final_test import final_logits
from peewit.system.malloc import freed_memory_kept
from peewit.training.budget.benchmark import Machine
from peewit.training.build import build_setup
from peewit.training.callbacks import CallbackList
from peewit.training.environment import isolated
from peewit.training.resolve import resolve
from peewit.training.state import TrainState

SETS = ("flowers", "grocery", "caltech101", "weather", "trashnet")
HELD_OUT = 0.2


def pictures(archive):
    """Return the pictures of an archive and their classes; unreadable ones are left out."""
    found = []
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda member: member.name)
        paths = [PurePosixPath(member.name) for member in members]
        split = any(path.parts[1] == "train" for path in paths)
        for member, path in zip(members, paths, strict=True):
            if split and path.parts[1] != "train":
                continue
            try:
                pixels = read_picture(tar.extractfile(member).read(), member.name)
            except PeewitError:
                continue
            picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
            found.append((picture.convert("RGB"), path.parent.name))
    return found


def fitted(found, name, size, fit):
    """Return the pictures as a data set of ``size`` x ``size`` pixels."""
    classes = sorted({label for _, label in found})
    images = np.stack([np.asarray(fit_picture(one, size, size, fit)) for one, _ in found])
    labels = np.array([classes.index(label) for _, label in found])
    return Dataset(images, labels, classes, name)


def measure(dataset, model, epochs, seed):
    """Train once and return the results for the log."""
    recipe = Recipe.preset(
        "fast", model=model, epochs=epochs, seed=seed, validation_fraction=HELD_OUT, threads=1
    )
    recipe = resolve(recipe, dataset, Machine(time.perf_counter()))
    with isolated(1), freed_memory_kept():
        torch.manual_seed(seed)
        setup, state = build_setup(dataset, None, recipe, lambda sentence: None), TrainState()
        start = time.perf_counter()
        train(setup, state)
        seconds = time.perf_counter() - start
        found = final_logits(setup, setup.validation, CallbackList())
    result = evaluate(found.logits, setup.validation.labels, dataset.class_names)
    return {
        "accuracy": result.accuracy,
        "loss": result.loss,
        "training_images": len(setup.training),
        "held_out_images": len(setup.validation),
        "seconds": round(seconds, 1),
        **rawlog.machine(),
    }


def table(rows):
    """Return the Markdown table: for each set, mean and deviation of each fit."""
    lines = [
        f"| set | side | aspect ratio 1.1 or more | {' | '.join(FITS)} | seeds |",
        f"|---|---:|---:|{'---:|' * (len(FITS) + 1)}",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["set"], row["size"]), []).append(row)
    means = []
    for (name, size), same in groups.items():
        spreads = [
            rawlog.spread(100 * row["accuracy"] for row in same if row["fit"] == fit)
            for fit in FITS
            if any(row["fit"] == fit for row in same)
        ]
        if len(spreads) < len(FITS):
            continue
        means.append([mean for mean, _, _ in spreads])
        cells = " | ".join(f"{mean:.1f} % ± {deviation:.1f}" for mean, deviation, _ in spreads)
        count = min(count for _, _, count in spreads)
        lines.append(f"| {name} | {size} | {same[0]['not_square']:.0%} | {cells} | {count} |")
    if means:
        cells = " | ".join(f"{mean:.1f} %" for mean in np.mean(means, axis=0))
        lines.append(f"| mean | | | {cells} | |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of tar files")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--size", type=int, default=48, help="side of the input in pixels")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", default="fast-s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.photos:
            parser.error("give --photos or --table")
        log = options.log = options.log or rawlog.today("fit")
        for name in options.sets:
            found = pictures(options.photos / f"{name}.tar")
            ratios = [max(one.size) / min(one.size) for one, _ in found]
            fits = {fit: fitted(found, name, options.size, fit) for fit in FITS}
            for seed in range(options.seeds):
                for fit, dataset in fits.items():
                    wanted = {
                        "set": name,
                        "fit": fit,
                        "size": options.size,
                        "model": options.model,
                        "epochs": options.epochs,
                        "seed": seed,
                    }
                    if rawlog.find(log, **wanted):
                        continue
                    facts = {"not_square": float(np.mean(np.array(ratios) >= 1.1))}
                    row = wanted | facts | measure(dataset, options.model, options.epochs, seed)
                    rawlog.append(log, row)
                    print(
                        f"{name}, seed {seed}, {fit}: {row['accuracy']:.1%}, {row['seconds']} s",
                        flush=True,
                    )
    print(table(rawlog.read(options.log or rawlog.newest("fit"))))


if __name__ == "__main__":
    main()
