"""Measure each part of the fast recipe: the same training without it, on held-out images.

usage: python benchmarks/recipe_parts.py --data cifar-10-python.tar.gz [--model fast-m]
           [--epochs 2] [--seeds 3] [--parts NAME ...] [--changes precision=bfloat16 ...]
           [--images 45000] [--log FILE]
       python benchmarks/recipe_parts.py --table [--log FILE]

All runs see the same number of images, whatever their time, so background load does not
matter. They train on nine tenths of CIFAR-10's training images and are validated on the last tenth,
which is the same for all; the test set is not used. All parts are trained with the first seed, then
all with the second and so on. --changes overrides recipe fields in all of them and is recorded in
the log, such as precision=bfloat16 to make long runs shorter. --images trains on fewer images
to simulate a smaller data set; the held-out tenth stays the same. Each training appends one line to
the log; runs that are in the log are skipped.
"""

import argparse
import time
from pathlib import Path

import rawlog
import torch
from tried import TRIED, train

import peewit
from peewit import Recipe
from peewit.evaluation.metrics import evaluate
from peewit.models.registry import FAST_WIDTHS
from peewit.report.final_test import final_logits
from peewit.system.malloc import freed_memory_kept
from peewit.training.budget.benchmark import Machine
from peewit.training.build import build_setup
from peewit.training.callbacks import CallbackList
from peewit.training.environment import isolated
from peewit.training.resolve import resolve
from peewit.training.state import TrainState

AS_IT_IS = "as it is"
TRAINING, HELD_OUT = 45_000, 5_000
# Changes by name. Without "lr", Muon's learning rate depends on the number of steps.
# The names are those in the logs.
PARTS = {
    AS_IT_IS: {},
    "Adam instead of Muon": {"optimizer": "adam", "lr": 1e-3},
    "constant rate": {"schedule": "constant"},
    "no label smoothing": {"label_smoothing": 0.0},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "no mirroring": {"flip": "none"},
    "mirrored at random": {"flip": "random"},
    "no translation": {"translate": 0},
    "translation by 2, no cutout": {"translate": 2, "cutout": 0},
    "translation by 4": {"translate": 4},
    "cutout of 8": {"cutout": 8},
    "cutout of 12": {"cutout": 12},
    "translation by 4, cutout of 8": {"translate": 4, "cutout": 8},
    "translation by 4, cutout of 12": {"translate": 4, "cutout": 12},
    "pixels not normalised": {"normalize": False},
    "batches of 125": {"batch_size": 125},
    "batches of 500": {"batch_size": 500},
    "batches of 2,000": {"batch_size": 2000},
    "a rate of 0.06": {"lr": 0.06},
    "a rate of 0.17": {"lr": 0.17},
    "a rate of 0.24": {"lr": 0.24},
    "bfloat16": {"precision": "bfloat16"},
    "average of the weights, 0.95 a step": {"average": 0.95},
    "average of the weights, 0.98 a step": {"average": 0.98},
    "Lookahead of 5 steps": {"lookahead": 5},
    "the first layer drawn, not whitening": {"drawn_patches": True},
    "filters drawn, none a copy": {"drawn_filters": True},
    "biases at a tenth of the rate": {"bias_rate": 0.1},
    "biases at three times the rate": {"bias_rate": 3.0},
    "2 epochs of small images, all images": {"small_epochs": 2, "skip_easy": 0.0},
    "all images in all epochs": {"skip_easy": 0.0},
    "without the easiest half": {"skip_easy": 0.5},
    "without the easiest quarter, chosen at each pass": {"easy_share": 0.25, "skip_easy": 0.0},
    "without the easiest half, chosen at each pass": {"easy_share": 0.5, "skip_easy": 0.0},
}


def measure(dataset, part, model, epochs, seed, changes, training_images):
    """Train once and return the log row; ``changes`` apply to all parts."""
    everywhere, changes = changes, changes | PARTS[part]
    used = training_images + HELD_OUT
    if used < len(dataset):
        _, dataset = dataset.split(used / len(dataset), 0)
    tried = {name: changes.pop(name) for name in TRIED if name in changes}
    recipe = Recipe.preset(
        "fast",
        model=model,
        epochs=epochs,
        seed=seed,
        validation_fraction=HELD_OUT / used,
        **changes,
    )
    recipe = resolve(recipe, dataset, Machine(time.perf_counter()))
    with isolated(recipe.threads), freed_memory_kept():
        torch.manual_seed(seed)
        setup, state = build_setup(dataset, None, recipe, lambda sentence: None), TrainState()
        train(setup, state, **tried)
        found = final_logits(setup, setup.validation, CallbackList())
    names, labels = dataset.class_names, setup.validation.labels
    return {
        "part": part,
        "model": model,
        "epochs": epochs,
        "seed": seed,
        "changes": everywhere,
        "training_images": training_images,
        "accuracy": evaluate(found.logits, labels, names).accuracy,
        "single_view_accuracy": evaluate(found.single, labels, names).accuracy,
        "images": state.seen,
        "flops": state.flops,
        **rawlog.machine(),
    }


def table(rows):
    """Return the Markdown table: means, deviations and differences to the unchanged recipe."""
    lines = [
        "| network | images | epochs | change | held-out accuracy | single view | seeds "
        "| difference |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    groups = {}
    for row in rows:
        changes = ", ".join(f"{name} {value}" for name, value in row["changes"].items())
        key = (row["model"], row["training_images"], row["epochs"], changes, row["part"])
        groups.setdefault(key, []).append(row)
    for (model, images, epochs, changes, part), same in groups.items():
        accuracy, deviation, count = rawlog.spread(100 * row["accuracy"] for row in same)
        single, single_deviation, _ = rawlog.spread(
            100 * row["single_view_accuracy"] for row in same
        )
        whole = {
            row["seed"]: row for row in groups.get((model, images, epochs, changes, AS_IT_IS), [])
        }
        pairs = [
            100 * (row["accuracy"] - whole[row["seed"]]["accuracy"])
            for row in same
            if row["seed"] in whole
        ]
        difference = ""
        if pairs and part != AS_IT_IS:
            mean, error, _ = rawlog.spread(pairs)
            difference = f"{mean:+.2f} ± {error:.2f}"
        changed = ", ".join(filter(None, (changes, part)))
        lines.append(
            f"| {model} | {images:,} | {epochs} | {changed} | {accuracy:.2f} % ± {deviation:.2f} "
            f"| {single:.2f} % ± {single_deviation:.2f} | {count} | {difference} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="CIFAR-10 archive or folder")
    parser.add_argument("--model", choices=list(FAST_WIDTHS), default="fast-m")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--images", type=int, default=TRAINING)
    parser.add_argument(
        "--changes", nargs="*", default=[], help="recipe fields to override: name=value"
    )
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.data:
            parser.error("give --data or --table")
        changes = rawlog.changes(options.changes)
        log = options.log = options.log or rawlog.today("recipe_parts")
        dataset = peewit.load("cifar10", data=options.data).train
        for seed in range(options.seeds):
            for part in options.parts:
                wanted = {
                    "part": part,
                    "model": options.model,
                    "epochs": options.epochs,
                    "seed": seed,
                    "changes": changes,
                    "training_images": options.images,
                }
                if rawlog.find(log, **wanted):
                    continue
                row = measure(dataset, **wanted)
                rawlog.append(log, row)
                print(f"seed {seed}, {part}: {row['accuracy']:.2%}", flush=True)
    print(table(rawlog.read(options.log or rawlog.newest("recipe_parts"))))


if __name__ == "__main__":
    main()
