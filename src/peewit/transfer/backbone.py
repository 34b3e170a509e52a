"""Complete a recipe by what the file of its backbone says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peewit.models.encoders.trial import try_encoder
from peewit.system.text import counted
from peewit.training.defaults import Note
from peewit.training.recipe import Recipe

# ImageNet's mean and standard deviation, which most encoders were trained with
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def with_backbone(recipe: Recipe, note: Note) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with size, output and normalisation of its backbone, and facts about it.

    Parameters
    ----------
    recipe : Recipe
        With a backbone.
    note : callable
        Called with what was found, and with what was assumed.

    Raises
    ------
    PeewitError
        The file is not an image encoder that can be used.
    """
    file = Path(recipe.backbone or "").expanduser()
    found = try_encoder(file, recipe.backbone_output, recipe.image_size)
    how = "" if found.pooling == "none" else f", {found.pooling}"
    note(
        f"backbone {file.name}: {counted(found.features, 'feature')} (output {found.output}{how}) "
        f"of {found.size} x {found.size} pixels, by {found.engine.replace('-', ' ', 1)}"
    )
    mean, std = found.normalisation or IMAGENET
    if found.takes_bytes:
        mean, std = (0.0,) * 3, (1.0,) * 3  # the file normalises them itself
    elif found.normalisation is None and None in (recipe.backbone_mean, recipe.backbone_std):
        note(
            f"{file.name} does not say how its input is normalised: by the mean "
            f"{_joined(mean)} and the standard deviation {_joined(std)} of ImageNet, as for most "
            "encoders (--backbone-mean and --backbone-std change it)"
        )
    recipe = recipe.replace(
        backbone=str(file),
        image_size=found.size,
        backbone_output=found.output,
        backbone_mean=recipe.backbone_mean or _joined(mean),
        backbone_std=recipe.backbone_std or _joined(std),
    )
    facts = {"file": file.name, "sha256": found.sha256, "features": found.features}
    return recipe, facts


def _joined(values: tuple[float, ...]) -> str:
    return ",".join(map(repr, values))
