"""Does training stay fast on very many pictures in files?

For 10,000, 100,000 and 1,000,000 small JPEGs in class folders it measures: how long the first start
takes, in which the pictures are listed and decoded into the cache; how long a start takes with a
warm cache; the throughput of a number of training steps; and the peak resident memory of each of
these processes. Each measurement is a process of its own.

The pictures are hard links to a few thousand different files (or copies, where the file system has
no hard links), which are made first. So listing and opening files cost what they cost with a
million different ones, but reading them from a cold disk is not measured.

    python benchmarks/folder_scale.py                       # all sizes
    python benchmarks/folder_scale.py --pictures 2000 20000

A benchmark that was killed continues where it was: the pictures that exist are kept, and sizes that
are in today's log are skipped.
"""

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from pathlib import Path

import child
import rawlog
from memory import peak_memory

LOG = rawlog.today("folder_scale")
CLASSES = 10
DIFFERENT = 5_000  # picture files
SIDE = 40  # pixels, of the files
SIZE = 32  # of the network's input
LINKS = 50_000  # the most links to one file; ext4 allows 65,000
SPARE = 2e9  # bytes that must stay free


def make_originals(folder):
    """Make the different picture files, if they are not there."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(list(folder.glob("*.jpg"))), DIFFERENT):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
        coarse[..., 0] = coarse[..., 0] // 4 + 19 * (number % CLASSES)
        picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        partial = folder / "partial"
        picture.save(partial, "jpeg", quality=85)
        partial.rename(folder / f"{number:05}.jpg")


def make_folder(folder, originals, count):
    """Make a folder with ``count`` pictures, if it is not complete; return the seconds it took."""
    done = folder / ".complete"
    began = time.perf_counter()
    if done.is_file():
        return 0.0
    if count // DIFFERENT > LINKS:
        sys.exit(f"more than {LINKS} links to one file: raise DIFFERENT")
    for label in range(CLASSES):
        inside = folder / f"class{label}"
        inside.mkdir(parents=True, exist_ok=True)
        have = {entry.name for entry in os.scandir(inside)}
        for number in range(label, count, CLASSES):
            name = f"{number:07}.jpg"
            if name in have:
                continue
            original = originals / f"{number % DIFFERENT:05}.jpg"
            try:
                os.link(original, inside / name)
            except OSError:
                shutil.copyfile(original, inside / name)
    done.touch()
    return time.perf_counter() - began


def disk_rate(folder):
    """Return how many bytes per second the disk takes, with everything flushed."""
    block = os.urandom(1 << 24)
    file = folder / "rate"
    began = time.perf_counter()
    with file.open("wb") as opened:
        for _ in range(16):
            opened.write(block)
        os.fsync(opened.fileno())
    seconds = time.perf_counter() - began
    file.unlink()
    return 16 * len(block) / seconds


def own_peak():
    """Return the peak resident memory of this process in MiB, or None if unknown.

    Not `memory.peak_memory`: on Linux that is never less than the memory of the process that
    started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_memory()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def start(folder):
    """In a process of its own: list and decode, and print how long each took."""
    began = time.perf_counter()
    from peewit.data.packing import at_size
    from peewit.data.sources import load

    imported = time.perf_counter()
    listed = load(str(folder)).train
    at = time.perf_counter()
    dataset = at_size(listed, SIZE, SIZE, "crop", lambda sentence: None)
    dataset.fingerprint  # noqa: B018  (a start needs it)
    now = time.perf_counter()
    print(
        json.dumps(
            {
                "pictures": len(dataset),
                "import_seconds": imported - began,
                "listing_seconds": at - imported,
                "opening_seconds": now - at,
                "start_seconds": now - imported,
                "peak_memory_mib": own_peak(),
            }
        )
    )


def train(folder, model, steps):
    """In a process of its own: some training steps, and print their throughput."""
    import torch

    from peewit.data.packing import at_size
    from peewit.data.sources import load
    from peewit.system.cpu import usable_cores
    from peewit.training.budget.benchmark import Machine
    from peewit.training.build import build_setup
    from peewit.training.loop import batches, train_step
    from peewit.training.recipe import Recipe
    from peewit.training.resolve import resolve
    from peewit.training.state import TrainState

    def quiet(sentence):
        pass

    dataset = at_size(load(str(folder)).train, SIZE, SIZE, "crop", quiet)
    recipe = Recipe.preset("fast", model=model, epochs=1, image_size=SIZE, threads=usable_cores())
    recipe = resolve(recipe, dataset, Machine(time.perf_counter()), quiet)
    torch.set_num_threads(recipe.threads)
    began = time.perf_counter()
    setup = build_setup(dataset, None, recipe, quiet)
    built = time.perf_counter() - began
    setup.model.train()
    seconds, images = [], 0
    before = time.perf_counter()
    for batch in itertools.chain.from_iterable(
        batches(setup, TrainState(epoch=epoch)) for epoch in itertools.count()
    ):
        train_step(setup, batch)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        images += len(batch.indices)
        if len(seconds) == steps:
            break
    # the first steps also check the cache and warm up
    rest = sorted(seconds[steps // 4 :])
    print(
        json.dumps(
            {
                "model": model,
                "steps": len(seconds),
                "build_seconds": built,
                "images_per_second": images / sum(seconds),
                "median_images_per_second": recipe.batch_size / rest[len(rest) // 2],
                "batch_size": recipe.batch_size,
                "threads": recipe.threads,
                "peak_memory_mib": own_peak(),
            }
        )
    )


def measure(place, count, model, steps):
    """Measure one size, and log it."""
    folder, home = place / f"{count}", place / f"home-{count}"
    made = make_folder(folder, place / "originals", count)
    shutil.rmtree(home, ignore_errors=True)  # of a benchmark that was killed
    environment = {"PEEWIT_HOME": str(home)}
    this = [sys.executable, __file__]
    cold = child.run([*this, "--start", folder], environment)
    warm = [child.run([*this, "--start", folder], environment) for _ in range(3)]
    training = child.run(
        [*this, "--train", folder, "--model", model, "--steps", str(steps)], environment
    )
    best = min(warm, key=lambda one: one.report["start_seconds"])
    row = {
        "pictures": count,
        "size": SIZE,
        "made_seconds": made,
        "packing": cold.report,
        "packing_per_second": count / cold.report["opening_seconds"],
        "warm": best.report,
        "warm_start_seconds": [one.report["start_seconds"] for one in warm],
        "training": training.report,
        "disk_bytes_per_second": disk_rate(place),
        **rawlog.machine(),
    }
    rawlog.append(LOG, row)
    shutil.rmtree(home)


def table():
    """Print the newest log."""
    print("pictures  packing/s  warm start  training images/s  peak MiB: packing, start, training")
    for row in rawlog.read(rawlog.newest("folder_scale")):
        memory = [row[part]["peak_memory_mib"] or 0 for part in ("packing", "warm", "training")]
        print(
            f"{row['pictures']:>9,} {row['packing_per_second']:>10,.0f} "
            f"{min(row['warm_start_seconds']):>9.2f} s "
            f"{row['training']['median_images_per_second']:>18,.0f}   "
            + ", ".join(f"{one:,.0f}" for one in memory)
        )


def main():
    """Measure all sizes, or one of the parts in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--place", type=Path, default=Path("folder-scale"), help="working folder")
    parser.add_argument("--model", default="fast-xs")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.start)
        return
    if options.train:
        train(options.train, options.model, options.steps)
        return
    place = options.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    need = SPARE + max(options.pictures) * (3 * SIZE * SIZE + 500)
    if shutil.disk_usage(place).free < need:
        sys.exit(f"{place} needs {need / 1e9:.0f} GB of free disk space")
    make_originals(place / "originals")
    for count in sorted(options.pictures):
        if rawlog.find(LOG, pictures=count) is None:
            measure(place, count, options.model, options.steps)
    table()


if __name__ == "__main__":
    main()
