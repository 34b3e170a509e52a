"""Profile a training step of the tutorial's network, with and without the compiled kernels.

usage: python benchmarks/step_profile.py [--steps 200] [--rounds 5]

Each round profiles both variants; the table shows the median milliseconds per step over the rounds.
`ceiling` is the time the step's convolutions would take at the rate of the fastest large 3x3
convolution measured in the same round (`peewit.training.budget.benchmark.best_rate`): time above it
in the convolutions' rows is lost inside PyTorch's operators. The raw log goes to
benchmarks/results/.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import rawlog
import torch
from torch.nn import functional as F
from torch.profiler import profile

from peewit.images.preprocessing import Preprocessing
from peewit.kernels import library
from peewit.models.registry import build
from peewit.system.malloc import freed_memory_kept
from peewit.training.budget.benchmark import best_rate
from peewit.training.optimizers.keras_adam import KerasAdam

BATCH = 32
# backward costs twice the forward pass, but images need no gradient; a multiply-add counts as 2
FLOPS = 2 * BATCH * (3 * (13 * 13 * 128 * 576 + 4 * 4 * 64 * 1152) + 2 * 30 * 30 * 64 * 27)
GROUPS = {
    "convolution forward": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward"),
    "convolution backward": ("aten::convolution_backward",),
    "fused passes": ("_Stage", "_StageBackward"),
    "batch normalisation": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU": ("aten::clamp_min", "aten::threshold_backward"),
    "pooling": (
        "aten::max_pool2d_with_indices",
        "aten::max_pool2d_with_indices_backward",
        "aten::fill_",  # zeroes the buffer for pooling's gradient
    ),
    "Adam": ("aten::_fused_adam_", "aten::_foreach_copy_"),
}


def step_times(kernels, steps):
    """Return milliseconds per step of each group, and of the whole step without profiler."""
    found = library.load
    if not kernels:
        library.load = lambda: None
    try:
        model = build("tutorial", (32, 32, 3), 10, 0)
        optimizer = KerasAdam(model.parameters())
        images = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
        rule = Preprocessing(32, 32, 3, (0.0,) * 3, (1.0,) * 3)
        y = torch.arange(BATCH) % 10

        def run():
            for _ in range(steps):
                optimizer.zero_grad()
                F.cross_entropy(model(rule.tensor(images)), y).backward()
                optimizer.step()

        with freed_memory_kept():  # as in training
            run()
            began = time.perf_counter()
            run()
            whole = time.perf_counter() - began
            with profile() as recorded:
                run()
    finally:
        library.load = found
    own = {event.key: event.self_cpu_time_total / 1000 for event in recorded.key_averages()}
    groups = {g: sum(own.get(name, 0) for name in names) for g, names in GROUPS.items()}
    groups["everything else"] = sum(own.values()) - sum(groups.values())
    groups["whole step, not profiled"] = whole * 1000
    return {group: total / steps for group, total in groups.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    head = rawlog.machine() | {"threads": torch.get_num_threads()}
    rounds = []
    for _ in range(options.rounds):
        rate = best_rate()
        times = {form: step_times(form == "fused", options.steps) for form in ("fused", "plain")}
        for form in times.values():
            form["ceiling"] = 1000 * FLOPS / rate
        rounds.append({"best_gflops": rate / 1e9, **times})
    lines = [f"{'ms per step of 32 images (medians)':<36} {'fused':>8} {'plain':>8}"]
    for group in rounds[0]["fused"]:
        fused, plain = (statistics.median(r[f][group] for r in rounds) for f in ("fused", "plain"))
        lines.append(f"{group:<36} {fused:8.2f} {plain:8.2f}")
    best = statistics.median(r["best_gflops"] for r in rounds)
    lines.append(
        f"\nfastest single convolution: {best:.0f} GFLOP/s; a step: {FLOPS / 1e9:.2f} GFLOP"
    )
    table = "\n".join(lines)
    log = Path(__file__).parent / "results" / f"step_profile-{time.strftime('%Y-%m-%d-%H%M')}.txt"
    rows = "\n".join(json.dumps(row) for row in rounds)
    log.write_text(f"{json.dumps(head, indent=1)}\n\n{table}\n\n{rows}\n")
    print(table)


if __name__ == "__main__":
    main()
