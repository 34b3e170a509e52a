"""The sentence about a run's network and its input."""

from __future__ import annotations

from peewit.models.registry import MODELS
from peewit.runs.run import Run

# by Preprocessing.fit; that images are resized goes without saying
FITTED = {
    "stretch": "",
    "crop": " Pictures with another aspect ratio are cropped in their longer side.",
    "pad": " Pictures with another aspect ratio are padded with grey on their shorter side.",
}


def model_sentence(run: Run, parameters: int | None) -> str:
    """Return what the network is, and how its input is prepared.

    Parameters
    ----------
    run : Run
    parameters : int or None
        Number of trainable parameters; None if the run has no weights yet.
    """
    rule, info = run.preprocessing, MODELS.get(run.recipe.model)
    about = f" ({info.description})" if info else ""
    statistics = "the training images" if info is None or not info.normalisation else "ImageNet"
    name, of = f"{run.recipe.model}{about}", f"the mean and standard deviation of {statistics}"
    if known := run.backbone:
        name = (
            f"a linear layer on the {known['features']:,} features of the backbone {known['file']}"
            f" (SHA-256 {known['sha256'][:12]}...), which is not trained"
        )
        of = f"the mean {_joined(rule.mean)} and the standard deviation {_joined(rule.std)}"
    size = f", with {parameters:,} trainable parameters" if parameters else ""
    kind = "grey" if rule.channels == 1 else "RGB"
    plain = not any(rule.mean) and all(value == 1 for value in rule.std)
    scaled = "with pixel values divided by 255" if plain else f"normalised by {of}"
    return (
        f"The model is {name}{size}. Its input is {kind} images of "
        f"{rule.width} x {rule.height} pixels, {scaled}.{FITTED[rule.fit]}"
    )


def _joined(values: tuple[float, ...]) -> str:
    """Return one number per channel for a sentence.

    >>> _joined((0.485, 0.456, 127 / 255))
    '0.485, 0.456, 0.498'
    """
    return ", ".join(f"{value:.4g}" for value in values)
