"""Measure the accuracy with few pictures of each class: pretrained features and training.

usage: python benchmarks/few_pictures.py [--cifar10 cifar-10-python.tar.gz] [--photos FOLDER]
           [--methods NAME ...] [--minutes 5] [--seeds 3] [--work FOLDER] [--log FILE]
       python benchmarks/few_pictures.py --table [--log FILE]

The pictures of each class are chosen by the seed; all methods get the same ones, and are tested
on the whole test part, which nothing is chosen on. ``knn`` and ``probe`` are made by hand on the
frozen features of EfficientNet-Lite0 (``transfer_by_hand.py``): the nearest neighbours by cosine
similarity, and logistic regression with one fixed C on standardised features. ``scratch`` and
``pretrained`` are `peewit train FOLDER --minutes M --start ...`. Each run appends one line to the
log; runs that are in the log are skipped.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import child
import numpy as np
import rawlog

from transfer import cell, peewit, prepared

COUNTS = {"cifar10": (10, 50, 100, 500, 5000), "flowers": (5, 20, 100)}
BY_HAND, TRAINED = ("knn", "probe"), ("scratch", "pretrained")
METHODS = (*BY_HAND, *TRAINED)
NEIGHBOURS = 5


def whole(name, options):
    """Return the folder of a set with the parts train and test; write it if need be."""
    if name == "flowers":
        return prepared(options.photos, name, 0, options.work)
    folder = Path(options.work, name)
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=options.work) as made:
            write_pictures(options.cifar10, Path(made, name))
            Path(made, name).rename(folder)
    return folder


def write_pictures(archive, folder):
    """Write CIFAR-10 as PNG files in class folders."""
    from PIL import Image

    from peewit import load

    data = load("cifar10", data=archive)
    for part, images in (("train", data.train), ("test", data.test)):
        for name in images.class_names:
            Path(folder, part, name).mkdir(parents=True)
        for number, label in enumerate(images.labels):
            path = Path(folder, part, images.class_names[label], f"{number:05}.png")
            Image.fromarray(np.asarray(images.images[number])).save(path)


def chosen(folder, count, seed):
    """Return the training pictures, ``count`` of each class by the seed, as (path, label)."""
    found = []
    for label, classed in enumerate(sorted(Path(folder, "train").iterdir())):
        files = sorted(classed.iterdir())
        random.Random(f"{seed} {classed.name}").shuffle(files)
        if len(files) < count:
            raise SystemExit(f"{classed} has only {len(files)} pictures")
        found += [(str(file), label) for file in files[:count]]
    return found


def features(folder, work):
    """Return the features of all pictures of a folder by path; compute them once."""
    import torch
    import transfer_by_hand

    saved = Path(work, f"{folder.name}-features.npz")
    if not saved.is_file():
        torch.set_num_threads(transfer_by_hand.CORES)
        paths = sorted(str(path) for path in folder.glob("*/*/*"))
        found, _ = transfer_by_hand.features([(path, 0) for path in paths])
        part = saved.with_suffix(".part.npz")
        np.savez(part, paths=np.array(paths), features=found)
        part.replace(saved)
    with np.load(saved) as file:
        return dict(zip(file["paths"].tolist(), file["features"], strict=True))


def by_hand(folder, count, seed, method, work):
    """Fit on frozen features; return the test accuracy."""
    from sklearn.neighbors import KNeighborsClassifier
    from transfer_by_hand import probe

    known, training = features(Path(folder), work), chosen(folder, count, seed)
    classes = enumerate(sorted(Path(folder, "test").iterdir()))
    test = [(str(file), label) for label, classed in classes for file in classed.iterdir()]
    parts = [
        (np.stack([known[path] for path, _ in part]), np.array([label for _, label in part]))
        for part in (training, test)
    ]
    if method == "probe":
        return {"accuracy": probe(*parts)}
    neighbours = KNeighborsClassifier(NEIGHBOURS, weights="distance", metric="cosine")
    return {"accuracy": neighbours.fit(*parts[0]).score(*parts[1])}


def trained(folder, count, seed, method, options):
    """Run Peewit on the chosen pictures and the whole test part."""
    with tempfile.TemporaryDirectory(dir=options.work) as made:
        few = Path(made, "few")
        for path, _ in chosen(folder, count, seed):
            copy = few / Path(path).relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        (few / "test").symlink_to(Path(folder, "test").absolute())
        return peewit(few, options.minutes, seed, ["--start", method])


def measure(options):
    """Run the measurements that are not in the log; go on after those that fail."""
    options.work.mkdir(parents=True, exist_ok=True)
    given = [name for name in COUNTS if options.cifar10 or name != "cifar10"]
    given = [name for name in given if options.photos or name != "flowers"]
    for seed in range(options.seeds):
        for name in given:
            folder = whole(name, options)
            for count in COUNTS[name]:
                for method in options.methods:
                    minutes = options.minutes if method in TRAINED else 0
                    what = {"set": name, "count": count, "method": method}
                    what |= {"minutes": minutes, "seed": seed}
                    if rawlog.find(options.log, **what):
                        continue
                    try:
                        if method in TRAINED:
                            found = trained(folder, count, seed, method, options)
                        else:
                            arguments = [str(folder), count, seed, method, str(options.work)]
                            command = [sys.executable, __file__, "--run", json.dumps(arguments)]
                            done = child.run(command)
                            found = done.report | {"seconds": done.seconds}
                    except SystemExit as error:
                        if isinstance(error.code, int):  # stopped, not failed
                            raise
                        print(error.code, file=sys.stderr)
                        continue
                    rawlog.append(options.log, rawlog.machine() | what | found)
                    print(json.dumps(what | found), flush=True)


def table(rows):
    """Return the Markdown table: test accuracy and seconds of each method."""
    lines = [
        f"| set | a class | {' | '.join(METHODS)} |",
        f"|---|---:|{'---:|' * len(METHODS)}",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["set"], row["count"], row["method"]), []).append(row)
    for name, count in sorted({key[:2] for key in groups}):
        cells = (cell(groups.get((name, count, method), [])) for method in METHODS)
        lines.append(f"| {name} | {count:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, help="the archive cifar-10-python.tar.gz")
    parser.add_argument("--photos", type=Path, help="folder with flowers.tar")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "transfer"))
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(by_hand(*json.loads(options.run))))
        return
    if not options.table:
        if not (options.cifar10 or options.photos):
            parser.error("give --cifar10, --photos or --table")
        options.log = options.log or rawlog.today("few_pictures")
        measure(options)
    print(table(rawlog.read(options.log or rawlog.newest("few_pictures"))))


if __name__ == "__main__":
    main()
