"""Compare training steps and predictions of EfficientNet-Lite0: plain PyTorch and the kernels.

usage: python benchmarks/fine_tuning.py [--sizes 224 160 128] [--batches 16 32] [--rounds 5]
       [--threads N] [--profile] [--table LOG]

A training step is forward, loss, backward and AdamW. The forms:

keras               the network as transfer guides train it: batch normalisation as layers, frozen;
                    in PyTorch's channels_last memory
keras contiguous    the same in PyTorch's default memory order
keras bfloat16      the same in channels_last memory, under autocast to bfloat16
folded              normalisation folded into the convolutions, kernels off, channels_last
ours, ours bfloat16 the same with Peewit's kernels

Each form has a process of its own; in each round the processes take turns. `all`: everything is
keras               as transfer guides train it: batch normalisation as layers, frozen; in
                    channels_last memory
keras contiguous    the same in PyTorch's default memory order
keras bfloat16      the same in channels_last memory, under autocast to bfloat16
folded              normalisation folded into the convolutions, kernels off, channels_last
ours, ours bfloat16 the same with Peewit's kernels

Each form has a process of its own; in each round the processes take turns. `all`: everything is
keras               as transfer guides train it: batch normalisation as layers, frozen; in PyTorch's
                    channels_last memory
the median of pictures/s, and its ratio to the fastest of the first three in the same round with the
range of the rounds. `--profile` samples a process of `ours` with Linux's `perf`, and prints the
share of the products (1x1), of the depthwise convolutions, of the rest of the kernels and of
PyTorch. The raw log goes to benchmarks/results/; `--table` prints a log's table again.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rawlog
import torch
from torch import nn
from torch.nn import functional as F

from peewit.kernels import library
from peewit.models.efficientnet_lite import ConvRelu6
from peewit.models.registry import build
from peewit.system.malloc import freed_memory_kept

PLAIN = ("keras", "keras contiguous", "keras bfloat16")
FORMS = (*PLAIN, "folded", "ours", "ours bfloat16")
TASKS = ("all", "half", "forward")
CLASSES = 5
LEAST_SECONDS = 1.0  # of each measurement


class NormalisedConv(nn.Module):
    """The convolution of `ConvRelu6` without bias, then batch normalisation and ReLU6."""

    def __init__(self, conv):
        super().__init__()
        self.linear, kernel, stride = conv.linear, conv.kernel_size[0], conv.stride[0]
        # "SAME" for the even sizes measured here
        before, after = ((kernel - stride) // 2, (kernel - stride + 1) // 2)
        symmetric = before == after
        self.pad = None if symmetric else (before, after) * 2
        self.conv = nn.Conv2d(
            *(conv.in_channels, conv.out_channels, kernel, stride, before if symmetric else 0),
            groups=conv.groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x):
        x = self.norm(self.conv(x if self.pad is None else F.pad(x, self.pad)))
        return x if self.linear else F.relu6(x)

    def train(self, mode=True):
        """Keep the normalisation frozen, in evaluation mode."""
        super().train(mode)
        self.norm.eval()
        return self


def network(form):
    """Return the network of a form, with random weights."""
    model = build("efficientnet-lite0", (224, 224, 3), CLASSES, 0)
    if form.startswith("keras"):
        for block in model.blocks:
            block.forward = layer_by_layer(block)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, ConvRelu6):
                    setattr(parent, name, NormalisedConv(child))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
    if form != "keras contiguous":
        model.to(memory_format=torch.channels_last)
    return model.train()


def layer_by_layer(block):
    """Return a forward function that calls the layers of a block one after the other."""

    def forward(x):
        out = block.project(block.depthwise(x if block.expand is None else block.expand(x)))
        return x + out if block.residual else out

    return forward


class Subject:
    """A form's network, measured in this process."""

    def __init__(self, form):
        self.form, self.model = form, network(form)
        if not form.startswith("ours"):
            library.load = lambda: None

    def seconds(self, task, size, batch, least):
        """Return seconds per call of a task, repeated for at least this long."""
        model, halves = self.model, len(self.model.blocks) // 2
        for parameter in model.parameters():
            parameter.requires_grad_(task != "forward")
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.requires_grad_(False)
        if task == "half":
            for part in (model.stem, *model.blocks[:halves]):
                part.requires_grad_(False)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True) if trained else None
        x, y = torch.randn(batch, 3, size, size), torch.arange(batch) % CLASSES
        if self.form != "keras contiguous":
            x = x.contiguous(memory_format=torch.channels_last)

        def call():
            with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in self.form):
                logits = model(x).float()
            if optimizer:
                optimizer.zero_grad()
                F.cross_entropy(logits, y).backward()
                optimizer.step()

        with torch.set_grad_enabled(bool(trained)), freed_memory_kept():
            call()
            times, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < least or not times:
                call()
                times += 1
        return took / times


class Child:
    """A process that measures a form whenever it is asked."""

    def __init__(self, form, threads):
        command = [sys.executable, __file__, "--child", form, "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, *question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"a measuring process failed: {question}")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def answer(form):
    """Measure what is asked on standard input until it ends."""
    subject = Subject(form)
    for line in sys.stdin:
        print(subject.seconds(*json.loads(line)), flush=True)


def measure(options, log):
    """Append pictures/s of all forms, a row for each round, task, size and batch."""
    children = {form: Child(form, options.threads) for form in FORMS}
    try:
        for size in options.sizes:
            for batch in options.batches:
                for task in TASKS:
                    for number in range(options.rounds):
                        order = FORMS if number % 2 else FORMS[::-1]
                        rates = {
                            form: batch / children[form].seconds(task, size, batch, LEAST_SECONDS)
                            for form in order
                        }
                        row = {"task": task, "size": size, "batch": batch, "round": number}
                        rawlog.append(log, row | {"rates": rates})
                    print(f"{size} pixels, batch {batch}, {task}", file=sys.stderr)
    finally:
        for child in children.values():
            child.close()


PARTS = (
    ("1x1 convolutions", r"native\S* .*\b_?product_"),
    ("depthwise convolutions", r"native\S* .*\b_?depthwise"),
    ("rest of the kernels", r"native\S* "),
    ("PyTorch: stem, top, optimiser", r"lib(torch|gomp|c10|iomp)\S* "),
)


def profile(form, task, size, batch, threads):
    """Return the shares of the parts of a task, from samples by `perf`."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "perf.data")
        subprocess.run(
            [
                *("perf", "record", "-q", "-e", "cpu-clock", "-o", str(data), "--delay", "8000"),
                *(sys.executable, __file__, "--child", form, "--threads", str(threads)),
            ],
            input=json.dumps([task, size, batch, 20.0]) + "\n",
            text=True,
            check=True,
            capture_output=True,
        )
        report = subprocess.run(
            ["perf", "report", "-i", str(data), "--stdio", "-F", "overhead,dso,sym"],
            text=True,
            check=True,
            capture_output=True,
        ).stdout
    shares = dict.fromkeys([*(name for name, _ in PARTS), "everything else"], 0.0)
    for line in report.splitlines():
        if found := re.match(r"\s+([\d.]+)%\s+(.*)", line):
            part = (name for name, pattern in PARTS if re.search(pattern, found[2]))
            shares[next(part, "everything else")] += float(found[1])
    return shares


def table(rows):
    """Return the lines of the table of a log."""
    lines = []
    groups = {}
    for row in rows:
        if "rates" in row:
            groups.setdefault((row["task"], row["size"], row["batch"]), []).append(row["rates"])
    lines.append(f"{'pictures/s':<22}" + "".join(f"{form:>18}" for form in FORMS))
    for (task, size, batch), rounds in groups.items():
        text = f"{task:<8}{size:>4} px, {batch:>3}  "
        for form in FORMS:
            text += f"{statistics.median(rates[form] for rates in rounds):>18.1f}"
        lines.append(text)
        for form in FORMS[len(PLAIN) :]:
            ratios = [rates[form] / max(rates[plain] for plain in PLAIN) for rates in rounds]
            lines.append(
                f"    {form:<16} {statistics.median(ratios):.2f} times the fastest of the first "
                f"three ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)"
            )
    for row in rows:
        if "shares" in row:
            lines.append(f"\n{row['form']}, {row['task']}, {row['size']} pixels: share of the time")
            lines += [f"  {name:<30} {share:5.1f} %" for name, share in row["shares"].items()]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 160, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--child", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        answer(options.child)
        return
    if options.table:
        print("\n".join(table(rawlog.read(options.table))))
        return
    if options.profile and not shutil.which("perf"):
        sys.exit("--profile needs Linux's perf")
    log = rawlog.RESULTS / f"fine_tuning-{time.strftime('%Y-%m-%d-%H%M')}.jsonl"
    rawlog.append(log, rawlog.machine() | {"threads": options.threads})
    measure(options, log)
    if options.profile:
        for form in ("ours", "ours bfloat16"):
            for task in ("all", "forward"):
                size, batch = options.sizes[0], options.batches[0]
                row = {"form": form, "task": task, "size": size, "batch": batch}
                shares = profile(form, task, size, batch, options.threads)
                rawlog.append(log, row | {"shares": shares})
    print("\n".join(table(rawlog.read(log))))
    print(f"\nlog: {log.name}")


if __name__ == "__main__":
    main()
