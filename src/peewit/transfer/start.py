"""Begin the training of a pretrained network with its last layer, and return to it if need be."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from peewit.models.efficientnet_lite import EfficientNetLite
from peewit.models.pretrained import load_weights
from peewit.training.callbacks import CallbackList
from peewit.training.loop import TrainSetup, validated
from peewit.training.state import TrainState
from peewit.transfer.head import Head, fit_head


def begin_with_head(setup: TrainSetup, state: TrainState, callbacks: CallbackList) -> Head:
    """Fit the last layer of ``setup.model`` to the features, and add the first row of the history.

    The row has epoch 0: no picture has been trained on yet.

    Raises
    ------
    StopTraining
        A callback asked to stop. The features computed so far are cached.
    """
    began = time.perf_counter()
    head = _fit_last_layer(setup)
    callbacks.check_stop()
    labels = torch.tensor(setup.training.labels)
    logits = torch.from_numpy(setup.logits(setup.training, callbacks.check_stop))
    loss, right = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels)
    state.seconds = time.perf_counter() - began
    row = validated(setup, state, callbacks)
    for name in ("flops", "gflops", "share_of_best"):  # of training steps, of which there are none
        row.pop(name, None)
    row |= {
        "epoch": 0,
        "loss": loss,
        "accuracy": right.double().mean().item(),
        "images_per_second": len(labels) / max(row["seconds"], 1e-9),
    }
    state.add_row(row, 0.0)
    state.spent = time.perf_counter() - began
    callbacks.on_epoch_end(state, row)
    return head


def better_of_both(
    tuned: TrainSetup, begun: TrainSetup, state: TrainState, callbacks: CallbackList
) -> TrainSetup:
    """Return the setup ``tuned``, unless fine-tuning has lowered the validation accuracy.

    Then the network gets its pretrained weights and the last layer that fits them again.

    Parameters
    ----------
    tuned : TrainSetup
        Whose network was fine-tuned.
    begun : TrainSetup
        The same with the features of the pretrained network. They share the network.
    state : TrainState
        With the history of both.
    callbacks : CallbackList
    """
    before, after = (state.history[at]["validation_accuracy"] for at in (0, -1))
    if after >= before:
        return tuned
    callbacks.note(
        f"fine-tuning has lowered the validation accuracy from {before:.1%} to "
        f"{after:.1%}: the network keeps its pretrained weights and the layer fitted to them"
    )
    network = begun.model
    assert isinstance(network, EfficientNetLite)
    load_weights(network, begun.recipe.model)
    _fit_last_layer(begun)
    return begun


def _fit_last_layer(setup: TrainSetup) -> Head:
    assert setup.features is not None
    features = setup.features(setup.training)
    head = fit_head(features, setup.training, setup.class_weights, setup.recipe.seed)
    layer = setup.model.get_submodule("head")
    with torch.no_grad():
        layer.get_parameter("weight").copy_(head.weight)
        layer.get_parameter("bias").copy_(head.bias)
    return head
