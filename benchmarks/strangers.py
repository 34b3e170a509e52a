"""Compare scores that tell pictures of no class from those of a classifier's classes.

usage: python benchmarks/strangers.py --photos FOLDER [--sets NAME ...] [--minutes 1] [--seeds 1]
           [--log FILE]
       python benchmarks/strangers.py --table [--log FILE]

FOLDER contains a folder of class folders for each set. Each set is trained twice, from a pretrained
network and from scratch, with a held-out test part. The pictures of each other set are its
strangers: 200 of them, chosen by the seed. Each score is computed for the test pictures and the
strangers. The log has, for each pair of sets and each score, the AUROC and the share of strangers
that are accepted when the threshold accepts 95 % of the test pictures (FPR95).

Scores: the maximum probability; the maximum logit; the energy, log-sum-exp of the logits (Liu et
al., arXiv 2010.03759); and distances in the standardised features before the last layer: to the
10th nearest training picture by cosine similarity (Sun et al., arXiv 2204.06507), Mahalanobis to
the nearest class mean (Lee et al., arXiv 1807.03888), and that relative to the distance to the mean
of all classes (Ren et al., arXiv 2106.09022).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import rawlog
import torch

import peewit
from peewit.data.packing import sized_for
from peewit.data.sources import load
from peewit.evaluation.inference import softmax
from peewit.evaluation.temperature import head
from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.runs.tested import find_tested
from peewit.transfer.engine import fastest

SETS = ("flowers", "trashnet", "weather", "sign_digits", "caltech101", "grocery")
STARTS = ("pretrained", "scratch")
STRANGERS, NEAREST, SHRINKAGE, BATCH = 200, 10, 0.1, 64
SCORES = (
    *("maximum probability", "maximum logit", "energy"),
    *("k nearest", "Mahalanobis", "relative Mahalanobis"),
)


def outputs(run, images):
    """Return the features before the last layer, and the logits."""
    network, rule = run.model(), run.preprocessing
    last = head(network)
    if isinstance(network, EfficientNetLite):
        engine = fastest(network, rule)
        found = [engine(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
        features = torch.from_numpy(np.concatenate(found))
    else:
        kept = []
        last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        with torch.inference_mode():
            for at in range(0, len(images), BATCH):
                network(rule.tensor(images[at : at + BATCH]))
        features = torch.cat(kept)
    with torch.inference_mode():
        return features.double(), last(features).double().numpy()


class Distances:
    """Distances to the training pictures in their standardised features."""

    def __init__(self, features, labels):
        labels = torch.tensor(labels)
        self.mean, self.scale = features.mean(0), features.std(0).clamp(min=1e-6)
        x = (features - self.mean) / self.scale
        self.unit = torch.nn.functional.normalize(x)
        present = labels.unique()
        self.means = torch.stack([x[labels == label].mean(0) for label in present])
        inside = x - self.means[torch.searchsorted(present, labels)]
        self.within, self.overall = (self.precision(part) for part in (inside, x))

    @staticmethod
    def precision(x):
        """Return the inverse of the covariance, shrunk to a multiple of the identity."""
        covariance = x.T @ x / len(x)
        scale = covariance.diagonal().mean()
        identity = torch.eye(len(covariance), dtype=covariance.dtype)
        return torch.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * scale * identity)

    def scores(self, features):
        """Return three scores, higher for pictures of the classes."""
        x = (features - self.mean) / self.scale
        near = (torch.nn.functional.normalize(x) @ self.unit.T).topk(NEAREST).values[:, -1]
        apart = torch.stack(
            [((x - mean) @ self.within * (x - mean)).sum(1) for mean in self.means], 1
        ).amin(1)
        return near, -apart, (x @ self.overall * x).sum(1) - apart


def scores(found, distances):
    """Return all scores by name; higher ones are those of the own classes."""
    features, logits = found
    top = logits.max(axis=1)
    energy = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    others = (score.numpy() for score in distances.scores(features))
    return dict(zip(SCORES, (softmax(logits).max(axis=1), top, energy, *others), strict=True))


def separation(own, strange):
    """Return the AUROC and the share of strangers accepted with 95 % of the own pictures."""
    order = np.sort(strange)
    below, upto = np.searchsorted(order, own), np.searchsorted(order, own, side="right")
    auroc = float((below + upto).mean() / 2 / len(strange))
    return auroc, float((strange >= np.quantile(own, 0.05)).mean())


def measure(name, start, options, seed, log):
    """Train once and append a row for each other set."""
    changes = {"minutes": options.minutes, "seed": seed}
    recipe = peewit.Recipe.preset("pretrained" if start == "pretrained" else "fast", **changes)
    source = load(str(options.photos / name))
    recipe = recipe.replace(folds=0)  # a test part, also of few pictures
    with tempfile.TemporaryDirectory() as folder:
        run = peewit.train(
            *(source.train, recipe),
            test=source.test,
            out=Path(folder) / "run",
            source={"source": str(options.photos / name)},
            progress=peewit.Callback(),
            illustrated=False,
        )
        train, test = (
            part and sized_for(part, run.preprocessing, print)
            for part in (source.train, source.test)
        )
        found = find_tested(run, train, test)
        features, _ = outputs(run, found.fitted.images)
        distances = Distances(features, found.fitted.labels)
        own = scores(outputs(run, found.judged.images), distances)
        for other in options.sets:
            if other == name:
                continue
            strange = load(str(options.photos / other)).train
            strange = strange.take(
                np.random.default_rng(seed).permutation(len(strange))[:STRANGERS]
            )
            strange = sized_for(strange, run.preprocessing, print)
            strangers = scores(outputs(run, strange.images), distances)
            row = {"set": name, "strangers": other, "start": start, "seed": seed}
            row |= {"minutes": options.minutes, "accuracy": run.metrics["accuracy"]}
            row |= {"test_images": len(found.judged), "stranger_images": len(strange)}
            pairs = {kind: separation(own[kind], strangers[kind]) for kind in SCORES}
            row["scores"] = {
                kind: {"auroc": round(auroc, 4), "fpr95": round(accepted, 4)}
                for kind, (auroc, accepted) in pairs.items()
            }
            rawlog.append(log, row | rawlog.machine())
            print(name, other, start, row["scores"], flush=True)


def table(rows):
    """Return the Markdown tables: mean and deviation over all pairs, then each set's means."""
    lines = []
    for start in STARTS:
        same = [row for row in rows if row["start"] == start]
        if not same:
            continue
        pairs = len({(row["set"], row["strangers"]) for row in same})
        lines += [
            "",
            f"{start}, {pairs} pairs of sets, {len({row['seed'] for row in same})} seeds:",
            "",
            "| score | AUROC | strangers accepted | " + " | ".join(SETS) + " |",
            "|---|---:|---:|" + "---:|" * len(SETS),
        ]
        for score in SCORES:
            means = [
                rawlog.spread(100 * row["scores"][score][kind] for row in same)[:2]
                for kind in ("auroc", "fpr95")
            ]
            cells = [f"{mean:.1f} % ± {deviation:.1f}" for mean, deviation in means]
            for name in SETS:
                own = [row["scores"][score]["fpr95"] for row in same if row["set"] == name]
                cells.append(f"{100 * np.mean(own):.1f} %" if own else "")
            lines.append(f"| {score} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of folders of class folders")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--starts", nargs="+", default=list(STARTS))
    parser.add_argument("--minutes", type=float, default=1.0, help="budget of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--log", type=Path, help="(default: today's; with --table the newest)")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    options = parser.parse_args()
    if not options.table:
        if not options.photos:
            parser.error("give --photos or --table")
        log = options.log = options.log or rawlog.today("strangers")
        for seed in range(options.seeds):
            for start in options.starts:
                for name in options.sets:
                    wanted = {"set": name, "start": start, "seed": seed, "minutes": options.minutes}
                    if len([row for row in rawlog.read(log) if wanted.items() <= row.items()]) < 5:
                        began = time.perf_counter()
                        measure(name, start, options, seed, log)
                        print(f"{name} {start}: {time.perf_counter() - began:.0f} s", flush=True)
    print(table(rawlog.read(options.log or rawlog.newest("strangers"))))


if __name__ == "__main__":
    main()
