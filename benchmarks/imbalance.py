"""Compare ways to train on imbalanced classes, on held-out images.

usage: python benchmarks/imbalance.py [--cifar10 cifar-10-python.tar.gz] [--flowers FOLDER]
           [--trashnet FOLDER] [--model fast-xs] [--seeds 3] [--ways NAME ...] [--log FILE]
       python benchmarks/imbalance.py --table [--log FILE]

Long-tailed training sets are made by taking fewer images of each further class, down to a tenth or
a fiftieth. All ways train for the same number of epochs, with one thread, on the same images. They
are tested on held-out images of the training parts; the test parts are not used. From the recall of
each class follow two accuracies: the balanced accuracy, which counts all classes equally, and the
expected accuracy on images that are distributed as the training images are. Each training appends
one line to the log; runs that are in the log are skipped.

Ways: the loss weighted by a power of the inverse class frequency; logit adjustment (A. K. Menon et
al., "Long-tail learning via logit adjustment", arXiv 2007.07314, equation 10, and post hoc,
equation 9); and images drawn with replacement, with the same probability for each class.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import rawlog
import torch
from torch.nn import functional as F

import peewit
from peewit import Recipe
from peewit.data.packing import at_size
from peewit.evaluation.metrics import evaluate
from peewit.report.final_test import final_logits
from peewit.system.malloc import freed_memory_kept
from peewit.training import loop
from peewit.training.budget.benchmark import Machine
from peewit.training.build import build_setup
from peewit.training.callbacks import CallbackList
from peewit.training.environment import isolated
from peewit.training.resolve import resolve
from peewit.training.state import TrainState

PLAIN, POST_HOC = "plain", "logit adjustment, post hoc"
# The powers of the inverse frequency by which the loss is weighted
WEIGHTED = {"weights": 1.0, "square root of weights": 0.5}
ADJUSTED, SAMPLED = "logit adjustment", "balanced sampling"
WAYS = (PLAIN, *WEIGHTED, ADJUSTED, SAMPLED)
SIZE, EPOCHS = 32, {"cifar10": 10, "flowers": 40, "trashnet": 10}
LARGEST, TESTED = 500, 3_000  # images of the largest class, and held-out images, of CIFAR-10
FLOWERS = (144, 72, 36, 18, 9)
HELD_OUT = 0.25  # of the training parts of the folders


def long_tail(dataset, counts, seed):
    """Return ``counts`` images of each class; which class is large depends on the seed."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(counts))
    chosen = []
    for label, count in zip(order, counts, strict=True):
        members = np.flatnonzero(dataset.labels == label)
        chosen.append(random.permutation(members)[:count])
    return dataset.take(np.sort(np.concatenate(chosen)))


def sets(options):
    """Yield name, epochs, a function from a seed to the training set, and the test set."""
    if options.flowers:
        train, test = folder(options.flowers)
        yield "flowers 1:16", EPOCHS["flowers"], partial(long_tail, train, FLOWERS), test
    if options.trashnet:
        whole, test = folder(options.trashnet)
        yield "trashnet", EPOCHS["trashnet"], lambda seed: whole, test
    if options.cifar10:
        given = peewit.load("cifar10", data=options.cifar10).train
        rest, test = given.split(TESTED / len(given), 0)
        for ratio in (10, 50):
            counts = [round(LARGEST * ratio ** (-i / 9)) for i in range(10)]
            yield f"cifar10 1:{ratio}", EPOCHS["cifar10"], partial(long_tail, rest, counts), test


def folder(path):
    """Return the training part of a folder at the size of the benchmark, a quarter held out."""
    return at_size(peewit.load(path).train, SIZE, SIZE, "crop", print).split(HELD_OUT, 0)


def losses_of(way, counts):
    """Return the loss function of a way to train on classes with ``counts`` training images."""
    if way in WEIGHTED:
        weights = torch.from_numpy(counts.sum() / counts.clip(1)) ** WEIGHTED[way]
        weights /= float(weights @ torch.from_numpy(counts / counts.sum()))  # 1 on average

        def weighted(logits, labels, smoothing=0.0, _=None):
            _, each = plain(logits, labels, smoothing)
            mean = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
            return (mean * weights.float()[labels]).mean(), each

        return weighted
    if way == ADJUSTED:
        prior = torch.from_numpy(np.log(counts.clip(1) / counts.sum())).float()
        return lambda logits, labels, *settings: plain(logits + prior, labels, *settings)
    return plain


def balanced_order(labels, counts):
    """Return a replacement of ``epoch_order`` that draws all classes equally often."""
    probabilities = 1 / counts.clip(1)[labels]
    probabilities /= probabilities.sum()

    def order(seed, epoch, images):
        return np.random.default_rng((seed, epoch)).choice(images, images, p=probabilities)

    return order


plain, in_turn = loop.cross_entropy, loop.epoch_order


def measure(name, epochs, training, test, way, model, seed):
    """Train once and return the log rows: one, and for the plain way that of post hoc too."""
    recipe = Recipe.preset(
        "fast", model=model, epochs=epochs, seed=seed, threads=1, tta=False, calibrate=False
    )
    # the weights are those of `losses_of`
    recipe = recipe.replace(class_weights="none")
    recipe = resolve(recipe, training, Machine(time.perf_counter()))
    with isolated(1), freed_memory_kept():
        torch.manual_seed(seed)
        setup, state = build_setup(training, test, recipe, lambda sentence: None), TrainState()
        counts = setup.training.class_counts
        loop.cross_entropy = losses_of(way, counts)
        if way == SAMPLED:
            loop.epoch_order = balanced_order(setup.training.labels, counts)
        try:
            began = time.process_time()
            loop.fit(setup, state)
            seconds = time.process_time() - began
        finally:
            loop.cross_entropy, loop.epoch_order = plain, in_turn
        logits = final_logits(setup, test, CallbackList()).logits
    prior = counts / counts.sum()
    found = {way: logits}
    if way == PLAIN:
        found[POST_HOC] = logits - np.log(prior.clip(1e-9))
    rows = []
    for one, values in found.items():
        recalls = [c.recall for c in evaluate(values, test.labels, test.class_names).per_class]
        rows.append(
            {
                "set": name,
                "way": one,
                "model": model,
                "epochs": epochs,
                "seed": seed,
                "counts": counts.tolist(),
                "recalls": recalls,
                "balanced_accuracy": float(np.mean(recalls)),
                "accuracy": float(prior @ recalls),
                "cpu_seconds": seconds,
                **rawlog.machine(),
            }
        )
    return rows


def table(rows):
    """Return the Markdown table: means, and paired differences to plain training."""
    lines = [
        "| set | network | way | balanced accuracy | difference | accuracy | difference "
        "| smallest class | seeds |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["set"], row["model"], row["way"]), {})[row["seed"]] = row
    for (name, model, way), same in groups.items():
        cells = []
        base = groups.get((name, model, PLAIN), {})
        for key in ("balanced_accuracy", "accuracy"):
            mean, _, _ = rawlog.spread(100 * row[key] for row in same.values())
            pairs = [100 * (row[key] - base[s][key]) for s, row in same.items() if s in base]
            cells.append(f"{mean:.1f} %")
            difference, deviation, _ = rawlog.spread(pairs) if pairs else (0, 0, 0)
            cells.append("" if way == PLAIN else f"{difference:+.1f} ± {deviation:.1f}")
        rarest, _, _ = rawlog.spread(
            100 * row["recalls"][int(np.argmin(row["counts"]))] for row in same.values()
        )
        lines.append(
            f"| {name} | {model} | {way} | {' | '.join(cells)} | {rarest:.0f} % | {len(same)} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", help="CIFAR-10 archive or folder")
    parser.add_argument("--flowers", help="folder with the parts train and test, of 5 classes")
    parser.add_argument("--trashnet", help="folder with the parts train and test")
    parser.add_argument("--model", default="fast-xs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        log = options.log = options.log or rawlog.today("imbalance")
        data = list(sets(options))
        for seed in range(options.seeds):
            for name, epochs, training, test in data:
                for way in options.ways:
                    wanted = {"set": name, "way": way, "model": options.model, "seed": seed}
                    if rawlog.find(log, **wanted):
                        continue
                    for row in measure(
                        name, epochs, training(seed), test, way, options.model, seed
                    ):
                        rawlog.append(log, row)
                        print(
                            f"{name}, seed {seed}, {row['way']}: {row['balanced_accuracy']:.2%}, "
                            f"{row['accuracy']:.2%}, {row['cpu_seconds']:.0f} s",
                            flush=True,
                        )
    print(table(rawlog.read(options.log or rawlog.newest("imbalance"))))


if __name__ == "__main__":
    main()
