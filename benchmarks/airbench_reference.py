"""Train airbench94 with Muon in plain float32 PyTorch, tuned for a CPU: the reference to beat.

usage: python benchmarks/airbench_reference.py --data cifar-10-python.tar.gz [--seed 0]
           [--tta every|last] [--log FILE] [--steps N]

The algorithm is that of Keller Jordan's "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv
2404.00498) with the optimiser of kellerjordan.github.io/posts/muon and the hyperparameters of
airbench94_muon.py. This is an independent implementation: from Peewit it uses only the data loader
and the measurement of the machine's fastest convolution. Where the program and the paper differ,
it follows the program: logits divided by the number of features, head initialised with unit
standard deviation, summed losses, exact GELU. float16 becomes float32; the batch size stays 2000.

Freed memory is kept, because otherwise the system would zero gigabytes of pages in every step.

Each epoch appends one line to the log: training seconds so far (evaluation is timed separately),
test accuracy with one view and with six, GFLOP/s and peak memory. The training state is saved
next to the log, and the same command resumes after the last complete epoch. --steps runs that many
steps of the first epoch as a quick check and writes no log.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import rawlog
import torch
from memory import keep_freed_memory, peak_memory
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import peewit
from peewit.training.budget.benchmark import best_rate

WIDTHS = (64, 256, 256)
EPOCHS, BATCH = 8, 2000
BIAS_RATE, HEAD_RATE, MUON_RATE = 0.053, 0.67, 0.24
MOMENTUM, MUON_MOMENTUM = 0.85, 0.6
DECAY = 2e-6 * BATCH
WHITENING_EPOCHS = 3
SMOOTHING, TRANSLATE = 0.2, 2
# test-time views: shift in pixels and weight; each is also mirrored
VIEWS = ((0, 0.5), (-1, 0.25), (1, 0.25))
# small enough for the activations to stay in the cache; affects speed only
TEST_BATCH = 100


class Block(nn.Module):
    """Convolution, pooling, batch normalisation, GELU; then the same without pooling."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
        # the moving statistics keep 0.6 of their value: a momentum of 0.4 in PyTorch's convention
        self.norm1, self.norm2 = (
            nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4) for _ in range(2)
        )
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """Frozen whitening of 2 x 2 patches (32 x 32 -> 31 x 31), three blocks, a linear head."""

    def __init__(self, classes):
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad_(False)
        channels = (24, *WIDTHS)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in pairwise(channels)))
        self.head = nn.Linear(WIDTHS[-1], classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x, train_whitening=False):
        bias = self.whitening.bias if train_whitening else self.whitening.bias.detach()
        x = F.gelu(F.conv2d(x, self.whitening.weight, bias))
        x = F.max_pool2d(self.blocks(x), 3).flatten(1)  # (n, 256, 3, 3) -> (n, 256)
        return self.head(x) / x.shape[1]

    def whiten(self, images):
        """Compute the whitening filters from ``images`` (N, 3, 32, 32): paper, section 3.2."""
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / torch.sqrt(values + 5e-4)).T.reshape(12, 3, 2, 2)
        self.whitening.weight.data.copy_(torch.cat([filters, -filters]))


class Muon:
    """Nesterov momentum, orthogonalised by three Newton-Schulz steps."""

    def __init__(self, filters):
        self.filters = filters
        self.momentum = [torch.zeros_like(f) for f in filters]

    @torch.no_grad()
    def step(self, rate):
        for weights, momentum in zip(self.filters, self.momentum, strict=True):
            momentum.mul_(MUON_MOMENTUM).add_(weights.grad)
            update = weights.grad.add(momentum, alpha=MUON_MOMENTUM).flatten(1)
            weights.mul_(len(weights) ** 0.5 / weights.norm())
            weights.add_(orthogonal(update).view_as(weights), alpha=-rate)


def orthogonal(matrix):
    """Return ``matrix`` with its singular values moved close to 1 (about 0.5 to 1.5)."""
    x = matrix / (matrix.norm() + 1e-7)
    if tall := len(x) > x.shape[1]:
        x = x.T
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


class Images:
    """The training images with random translation and alternating flip."""

    def __init__(self, dataset, seed):
        self.seed = seed
        images = torch.tensor(dataset.images).permute(0, 3, 1, 2)  # (N, 3, 32, 32)
        mirrored = torch.rand(len(images), generator=self.random("mirror")) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        # F.pad does not support uint8; small integers are exact in float32
        padded = torch.cat([F.pad(part.float(), (TRANSLATE,) * 4, "reflect").byte()
                            for part in images.split(BATCH)])  # fmt: skip
        # (N, 5, 5, 3, 32, 32): a view of every crop of every image, without a copy
        self.crops = padded.unfold(2, 32, 1).unfold(3, 32, 1).permute(0, 2, 3, 1, 4, 5)
        self.labels = torch.tensor(dataset.labels)

    def random(self, what, epoch=0):
        """Return a generator that depends only on the purpose, the seed and the epoch."""
        number = ("mirror", "order", "crop").index(what)
        return torch.Generator().manual_seed((self.seed * 1000 + epoch) * 3 + number)

    def batches(self, epoch):
        """Yield uint8 (2000, 3, 32, 32) and labels; drop the last, smaller batch."""
        count = len(self.labels)
        order = torch.randperm(count, generator=self.random("order", epoch))
        crop = torch.randint(0, 2 * TRANSLATE + 1, (count, 2), generator=self.random("crop", epoch))
        for index in order[: count // BATCH * BATCH].split(BATCH):
            images = self.crops[index, crop[index, 0], crop[index, 1]]
            yield images.flip(3) if epoch % 2 else images, self.labels[index]


def normalised(images, mean, std):
    """Convert uint8 (n, 3, 32, 32) to normalised float32, channels-last."""
    scaled = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test(network, images, labels, six_views):
    """Return the test accuracy with one view, optionally also with six, and their seconds."""
    network.eval()

    def logits(shift, mirror):
        parts = []
        for part in images.split(TEST_BATCH):
            if shift:
                first = 1 + shift
                part = F.pad(part, (1,) * 4, "reflect")
                part = part[:, :, first : first + 32, first : first + 32]
            part = part.flip(3) if mirror else part
            parts.append(network(part.contiguous(memory_format=torch.channels_last)))
        return torch.cat(parts)

    def accuracy(found):
        return (found.argmax(1) == labels).double().mean().item()

    began = time.perf_counter()
    one = logits(0, False)
    found = {"accuracy": accuracy(one), "test_seconds": time.perf_counter() - began}
    if six_views:
        total = 0.25 * (one + logits(0, True))
        for shift, weight in VIEWS[1:]:
            total += weight / 2 * (logits(shift, False) + logits(shift, True))
        found |= {"tta_accuracy": accuracy(total), "tta_seconds": time.perf_counter() - began}
    network.train()
    return found


def flops(train_whitening):
    """Return the operations per training image, counting a multiply-add as 2.

    They are those of the forward pass, the gradients of all trained weights, and the gradients of
    the convolutions' inputs; that of the first only while the whitening bias is trained.
    """
    total, size, inputs = 2 * 31 * 31 * 24 * 12, 31, 24
    for number, width in enumerate(WIDTHS):
        first = 2 * size**2 * width * inputs * 9
        total += (3 if number or train_whitening else 2) * first
        size //= 2
        total += 3 * 2 * size**2 * width**2 * 9
        inputs = width
    return total + 3 * 2 * WIDTHS[-1] * 10


class Training:
    """Network, optimisers and training images."""

    def __init__(self, dataset, seed):
        torch.manual_seed(seed)
        self.network = Network(len(dataset.class_names))
        self.mean, self.std = (
            torch.tensor(value, dtype=torch.float32) for value in dataset.channel_statistics
        )
        some = torch.tensor(dataset.images[:5000]).permute(0, 3, 1, 2)
        self.network.whiten(normalised(some, self.mean, self.std))
        self.network.to(memory_format=torch.channels_last)
        named = dict(self.network.named_parameters())
        biases = [value for name, value in named.items() if "norm" in name and value.requires_grad]
        self.groups = [
            ([self.network.whitening.bias], BIAS_RATE),
            (biases, BIAS_RATE),
            ([self.network.head.weight], HEAD_RATE),
        ]
        self.sgd = torch.optim.SGD(
            [{"params": p, "lr": lr, "weight_decay": DECAY / lr} for p, lr in self.groups],
            momentum=MOMENTUM,
            nesterov=True,
        )
        self.muon = Muon([value for name, value in named.items() if "conv" in name])
        self.images = Images(dataset, seed)
        self.steps = len(dataset) // BATCH  # per epoch

    def epoch(self, number, most=None):
        """Train one epoch, or its first ``most`` steps; return seconds, images and last loss."""
        total, whitening = EPOCHS * self.steps, WHITENING_EPOCHS * self.steps
        self.network.train()
        began, done = time.perf_counter(), 0
        for index, (images, labels) in enumerate(self.images.batches(number)):
            step = number * self.steps + index
            logits = self.network(normalised(images, self.mean, self.std), step < whitening)
            loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING, reduction="sum")
            loss.backward()
            for group, (_, rate) in zip(self.sgd.param_groups, self.groups, strict=True):
                group["lr"] = rate * (1 - step / total)
            self.sgd.param_groups[0]["lr"] = BIAS_RATE * max(0.0, 1 - step / whitening)
            self.sgd.step()
            self.muon.step(MUON_RATE * (1 - step / total))
            self.network.zero_grad()
            done += len(images)
            if index + 1 == most:
                break
        return time.perf_counter() - began, done, loss.item() / BATCH

    def save(self, file, rows):
        """Save the training state and the log rows so far."""
        named = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        named |= {f"muon.{n}": value for n, value in enumerate(self.muon.momentum)}
        momenta = self.sgd.state_dict()["state"]
        named |= {f"sgd.{n}": state["momentum_buffer"] for n, state in momenta.items()}
        named = {name: value.contiguous() for name, value in named.items()}
        partial = file.with_suffix(".part")
        save_file(named, partial, {"rows": json.dumps(rows)})
        partial.replace(file)

    def restore(self, file):
        """Load what ``save`` wrote, and return the log rows so far."""
        with safe_open(file, "pt") as opened:
            rows = json.loads(opened.metadata()["rows"])
            saved = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        part = {k.removeprefix("network."): v for k, v in saved.items() if k.startswith("network.")}
        self.network.load_state_dict(part)
        for number, momentum in enumerate(self.muon.momentum):
            momentum.copy_(saved[f"muon.{number}"])
        whole = self.sgd.state_dict()
        numbers = [int(k.removeprefix("sgd.")) for k in saved if k.startswith("sgd.")]
        whole["state"] = {n: {"momentum_buffer": saved[f"sgd.{n}"]} for n in numbers}
        self.sgd.load_state_dict(whole)
        return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CIFAR-10 archive or folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tta",
        choices=("every", "last"),
        default="every",
        help="epochs that are tested with six views",
    )
    parser.add_argument("--log", type=Path, default=rawlog.today("airbench_reference"))
    parser.add_argument("--steps", type=int, help="run this many steps and write no log")
    options = parser.parse_args()

    keep_freed_memory()
    began = time.perf_counter()
    splits = peewit.load("cifar10", data=options.data)
    training = Training(splits.train, options.seed)
    prepared = time.perf_counter() - began
    if options.steps:
        seconds, images, loss = training.epoch(0, options.steps)
        rate = flops(True) * images / seconds / 1e9
        print(f"{options.steps} steps: {seconds / options.steps:.2f} s each, {rate:.0f} GFLOP/s, "
              f"loss {loss:.3f}, peak memory {peak_memory():.0f} MiB")  # fmt: skip
        return
    best = best_rate() / 1e9
    state = options.log.with_name(f"{options.log.stem}-seed{options.seed}.state")
    logged = [row for row in rawlog.read(options.log) if row["seed"] == options.seed]
    rows = training.restore(state) if state.is_file() else []
    # the state is saved before its line is logged: add the line if a kill came in between
    for row in rows[len(logged) :]:
        rawlog.append(options.log, row)
    if len(logged) > len(rows):
        raise SystemExit(f"{options.log} already has this seed, but {state.name} is missing")
    test_images = normalised(
        torch.tensor(splits.test.images).permute(0, 3, 1, 2), training.mean, training.std
    )
    test_labels = torch.tensor(splits.test.labels)
    seconds = rows[-1]["seconds"] if rows else 0.0
    for number in range(len(rows), EPOCHS):
        took, images, loss = training.epoch(number)
        seconds += took
        done = flops(number < WHITENING_EPOCHS) * images
        gflops = done / took / 1e9
        six = options.tta == "every" or number + 1 == EPOCHS
        row = {
            "kind": "airbench",
            "seed": options.seed,
            "epoch": number + 1,
            "seconds": seconds,
            "epoch_seconds": took,
            "prepare_seconds": prepared,
            "loss": loss,
            **test(training.network, test_images, test_labels, six),
            "gflops": gflops,
            "best_gflops": best,
            "share_of_best": gflops / best,
            "peak_memory_mib": peak_memory(),
            **rawlog.machine(),
        }
        rows.append(row)
        training.save(state, rows)
        rawlog.append(options.log, row)
        shown = ", ".join(f"{k} {row[k]:.4g}" for k in ("seconds", "accuracy", "tta_accuracy")
                          if k in row)  # fmt: skip
        print(f"epoch {number + 1}: {shown}", flush=True)


if __name__ == "__main__":
    main()
