"""Compare 3x3 convolutions: Winograd (peewit.kernels.winograd) and PyTorch's direct algorithm.

usage: python benchmarks/convolutions.py [--batch 100] [--rounds 9] [--threads N]

The shapes are those of the fast networks on 32 x 32 images, all channels-last. Each round measures
both algorithms in alternating order: the forward pass alone, and forward with both gradients.
Ratios are taken within each round; the table shows their median and range. GFLOP/s count the
operations of a direct convolution for both, so Winograd's may exceed the processor's peak. Shapes
for which Peewit uses PyTorch's convolution are marked. The raw log goes to benchmarks/results/.
"""

import argparse
import json
import statistics
import time

import rawlog
import torch

from peewit.kernels import winograd
from peewit.models.registry import FAST_WIDTHS
from peewit.system.malloc import freed_memory_kept
from peewit.training.budget.benchmark import best_rate

LEAST_SECONDS = 0.05  # each measurement repeats the convolution for at least this long


def shapes():
    """Return (in, out, height = width) of the fast networks' convolutions, at 32 x 32 pixels."""
    found = []
    for widths in FAST_WIDTHS.values():
        channels, size = 24, 32  # output of the whitening layer for colour images
        for width in widths:
            found += [(channels, width, size), (width, width, size // 2)]
            channels, size = width, size // 2
    return sorted(set(found), key=lambda shape: (-shape[2], shape))


def rates(shape, batch, rounds):
    """Return GFLOP/s of both algorithms, forward and with gradients: one dict per round."""
    inputs, outputs, size = shape
    last = torch.channels_last
    x = torch.randn(batch, inputs, size, size).contiguous(memory_format=last)
    weight = (torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5).contiguous(
        memory_format=last
    )
    gradient = torch.randn(batch, outputs, size, size).contiguous(memory_format=last)
    flops = 2 * batch * size**2 * inputs * outputs * 9

    def forward(convolve):
        with torch.no_grad():
            convolve(x, weight)

    def with_gradients(convolve):
        convolve(x.requires_grad_(), weight.requires_grad_()).backward(gradient)
        x.grad = weight.grad = None

    def rate(run, convolve, operations):
        times, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < LEAST_SECONDS or not times:
            run(convolve)
            times += 1
        return operations * times / took / 1e9

    algorithms = {"direct": winograd.reference, "winograd": winograd.conv3x3}
    for convolve in algorithms.values():  # warm up
        forward(convolve)
        with_gradients(convolve)
    found = []
    for number in range(rounds):
        order = list(algorithms) if number % 2 else list(algorithms)[::-1]
        row = {}
        for name in order:
            row[f"{name} forward"] = rate(forward, algorithms[name], flops)
            row[f"{name} with gradients"] = rate(with_gradients, algorithms[name], 3 * flops)
        found.append(row)
    return found


def line(shape, batch, rows):
    """Return the table row of one shape."""
    inputs, outputs, size = shape
    text = f"{f'{inputs:>3} -> {outputs:>3}, {size} x {size}':<22}"
    for part in ("forward", "with gradients"):
        ratios = [row[f"winograd {part}"] / row[f"direct {part}"] for row in rows]
        rate = [
            statistics.median(row[f"{w} {part}"] for row in rows) for w in ("direct", "winograd")
        ]
        spread = f"({min(ratios):.2f} - {max(ratios):.2f})"
        text += f"{rate[0]:8.0f}{rate[1]:10.0f}{statistics.median(ratios):7.2f} {spread:<15}"
    return text + ("" if winograd.pays(batch, inputs, outputs, size, size) else "  uses PyTorch")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = rawlog.machine() | {"batch": options.batch, "threads": options.threads}
    lines = [
        f"{'':<22}{'forward: GFLOP/s':>18}{'':25}{'with gradients: GFLOP/s':>23}",
        f"{'channels, pixels':<22}{'direct':>8}{'Winograd':>10}{'ratio: median':>14}"
        f"{'':9}{'direct':>8}{'Winograd':>10}{'ratio: median':>14}",
    ]
    print("\n".join(lines))
    raw = []
    with freed_memory_kept():  # as in training
        head["best_gflops"] = best_rate() / 1e9
        for shape in shapes():
            rows = rates(shape, options.batch, options.rounds)
            raw += [{"shape": shape, **row} for row in rows]
            lines.append(line(shape, options.batch, rows))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + f"\n\nfastest direct convolution: {head['best_gflops']:.0f} GFLOP/s"
    log = rawlog.RESULTS / f"convolutions-{time.strftime('%Y-%m-%d-%H%M')}.txt"
    every = "\n".join(json.dumps(row) for row in raw)
    log.write_text(f"{json.dumps(head, indent=1)}\n\n{text}\n\n{every}\n", encoding="utf-8")
    print(f"\nlog: {log.name}")


if __name__ == "__main__":
    main()
