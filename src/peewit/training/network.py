"""The network of a recipe: one of the registry, or a layer on the features of a backbone."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from peewit.models.encoders.encoder import open_encoder
from peewit.models.encoders.network import EncoderNetwork
from peewit.models.registry import Shape, build
from peewit.training.recipe import Recipe


def build_network(
    recipe: Recipe, input_shape: Shape, classes: int, sha256: str | None = None
) -> nn.Module:
    """Build the network of a resolved recipe, with initial weights.

    Parameters
    ----------
    recipe : Recipe
    input_shape : tuple of int
        Height, width and channels of the images.
    classes : int
        The number of outputs.
    sha256 : str, optional
        What the file of a backbone must have.

    Raises
    ------
    PeewitError
        The network cannot be built for these images, or the backbone's file cannot be used.
    """
    if recipe.backbone is None:
        return build(recipe.model, input_shape, classes, recipe.seed)
    file, output = Path(recipe.backbone), recipe.backbone_output
    return EncoderNetwork(open_encoder(file, output, recipe.image_size, sha256), classes)
