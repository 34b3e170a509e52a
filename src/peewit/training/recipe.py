"""The settings of a training run, validated. No PyTorch here: `--help` reads them too."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from peewit.errors import UsageError
from peewit.models.registry import ENCODER, PRETRAINED, ModelInfo, find
from peewit.training.budget.frontier import NETWORKS
from peewit.training.fields import (
    at_least,
    is_unicode,
    per_channel,
    read_values,
    setting,
    shown,
    typed,
)
from peewit.training.optimizers import OPTIMIZERS

# they do not affect the trained weights, but the results: after a change a run is tested again
OF_THE_TEST = frozenset({"calibrate", "batch_norm_statistics"})
# a resumed run may change these: they do not affect what has been learned
FREE_TO_CHANGE = OF_THE_TEST | {
    *("name", "epochs", "minutes", "until_accuracy", "threads", "checkpoint_minutes")
}
AUTO = "auto"  # a value to be chosen; as model, the fast network that fits the length of training


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training run: everything that determines the weights, except the data.

    A recipe with ``minutes`` or ``until_accuracy`` has no number of epochs: ``epochs`` is None.
    Three fields may be None until they can be resolved: ``lr`` (with muon) from the number of
    steps, ``translate`` from the size of the images, ``skip_easy`` from the number of epochs.
    ``model`` and ``class_weights`` may be "auto".
    Each field has a one-line description in ``metadata["help"]``, and a command-line flag named
    after the field. ``metadata["flag"]`` overrides the flag; None means that there is no flag.

    Raises
    ------
    UsageError
        A value is invalid or has the wrong type.

    Examples
    --------
    >>> Recipe.preset("tutorial", epochs=1).batch_size
    32
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
    ...
    peewit.errors.UsageError: epochs is 0: it must be at least 1
    """

    name: str = setting(
        "tutorial",
        "name of the recipe",
        "a name",
        lambda value: bool(value.strip()) and is_unicode(value),
        flag=None,
    )
    model: str = setting(
        "tutorial", "network to train (auto: the fast network that fits the budget)"
    )
    start: Literal["auto", "scratch", "pretrained"] = setting(
        "scratch",
        "initial weights: random ones (scratch), or those of a network pretrained on ImageNet "
        "(auto: pretrained for photographs, if its weights are installed and the budget allows)",
    )
    epochs: int | None = setting(
        10,
        "number of passes over the training images (0, for a pretrained network: fit only its last "
        "layer)",
        *at_least(0),
    )
    minutes: float | None = setting(
        None,
        "time budget for the whole run in minutes, instead of epochs",
        "more than 0",
        lambda minutes: minutes > 0,
    )
    until_accuracy: float | None = setting(
        None,
        "train until this accuracy on held-out images, such as 0.9, instead of epochs",
        "more than 0 and at most 1",
        lambda accuracy: 0 < accuracy <= 1,
    )
    batch_size: int = setting(32, "number of images per training step", *at_least(1))
    optimizer: Literal["adam", "adamw", "muon"] = setting(
        "adam",
        "optimiser (muon: for the fast networks only; adamw: for the pretrained networks only)",
    )
    lr: float | None = setting(
        OPTIMIZERS["adam"].default_lr,
        "learning rate (muon: that of the filters; fast recipes: chosen by the length of training)",
        "more than 0",
        lambda rate: rate > 0,
    )
    schedule: Literal["constant", "linear"] = setting(
        "constant", "learning rate schedule (linear: decays to 0 at the end of training)"
    )
    fine_tune: Literal["auto", "none", "all"] = setting(
        "auto",
        "train all layers of a pretrained network after its last one (auto: if the budget allows)",
    )
    backbone: str | None = setting(
        None,
        "ONNX file of an image encoder, whose features are classified instead of training a model",
        "a path",
        lambda path: bool(path) and is_unicode(path),
        metavar="FILE.onnx",
    )
    backbone_mean: str | None = setting(
        None,
        "mean of each channel that the backbone's input is normalised by, from 0 to 1 (default: "
        "from the file, or else ImageNet's)",
        "three numbers from 0 to 1, such as 0.485,0.456,0.406",
        lambda text: all(0 <= value <= 1 for value in per_channel(text)),
        metavar="R,G,B",
    )
    backbone_std: str | None = setting(
        None,
        "standard deviation of each channel that the backbone's input is normalised by (default: "
        "from the file, or else ImageNet's)",
        "three numbers above 0, such as 0.229,0.224,0.225",
        lambda text: all(0 < value < 1e6 for value in per_channel(text)),
        metavar="R,G,B",
    )
    backbone_output: str | None = setting(
        None,
        "output of the backbone that the features are (default: the first that is suitable)",
        "a name",
        lambda name: bool(name) and is_unicode(name),
        metavar="NAME",
    )
    label_smoothing: float = setting(
        0.0,
        "label smoothing: share of each label that is spread over all classes",
        "at least 0 and less than 1",
        lambda share: 0 <= share < 1,
    )
    flip: Literal["none", "alternating", "random"] = setting(
        "none",
        "horizontal flip of the training images: in every other epoch (alternating), or at random",
    )
    translate: int | None = setting(
        0,
        "random translation of the training images, by up to this many pixels in each direction "
        "(fast: chosen by the image size)",
        *at_least(0),
    )
    cutout: int = setting(
        0, "side in pixels of the square that cutout masks in each training image", *at_least(0)
    )
    random_crop: float = setting(
        1.0,
        "random crops of the training images, resized to the whole: the least share of the area "
        "that they keep (1: no crops)",
        "more than 0 and at most 1",
        lambda share: 0 < share <= 1,
    )
    skip_easy: float | None = setting(
        0.0,
        "share of the training images, those with the lowest loss, that every epoch after the "
        "first skips (fast: chosen by the length of training)",
        "at least 0 and less than 1",
        lambda share: 0 <= share < 1,
    )
    class_weights: Literal["auto", "none", "sqrt", "balanced"] = setting(
        "none",
        "weight the loss by the inverse of each class's number of images (balanced) or of its "
        "square root (sqrt); auto: sqrt if the largest class is at least 3 times the smallest",
    )
    normalize: bool = setting(
        False, "normalise the channels by the mean and standard deviation of the training images"
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "number format for training (bfloat16: faster on processors that support it)"
    )
    tta: bool = setting(
        False,
        "test-time augmentation: average six views of uncertain images (three with flip none)",
    )
    calibrate: bool = setting(False, "after training, calibrate the confidence on held-out images")
    batch_norm_statistics: Literal["auto", "moving"] = setting(
        "auto",
        "batch normalisation's statistics for validation, test and prediction (moving: its moving "
        "averages, as in Keras; auto: the same, but estimated from training images while they "
        "still contain their initial values, because few steps were made)",
    )
    seed: int = setting(
        0,
        "random seed: the same seed gives the same weights",
        "from 0 to 2**63 - 1",
        lambda seed: 0 <= seed < 2**63,
    )
    threads: int | None = setting(
        None, "number of CPU threads (default: one per free core)", *at_least(1)
    )
    validate_on: Literal["holdout", "test"] = setting(
        "holdout",
        "images to validate on during training: held out of the training set, or the test set",
    )
    validation_fraction: float = setting(
        0.1,
        "share of the training set to hold out for validation",
        "more than 0 and less than 1",
        lambda share: 0 < share < 1,
    )
    folds: int | None = setting(
        None,
        "folds of the cross-validation of pictures without a test part (0: hold a test part out; "
        "default: cross-validation if there are few pictures, with as many folds as time allows)",
        "0, or from 2 to 20",
        lambda folds: folds == 0 or 2 <= folds <= 20,
    )
    image_size: int | None = setting(
        None,
        "height and width in pixels to resize the images to (default: no resizing)",
        *at_least(1),
    )
    fit: Literal["auto", "crop", "pad", "stretch"] = setting(
        AUTO,
        "how a picture with another aspect ratio than the network's input is fitted into it: crop "
        "its longer side, pad it with grey, or stretch it (auto: stretch)",
    )
    checkpoint_minutes: float = setting(
        5.0,
        "minutes between checkpoints within an epoch (0: a checkpoint after every step)",
        "at least 0",
        lambda minutes: minutes >= 0,
    )

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = typed(field.name, getattr(self, field.name), hints[field.name])
            if value is not None and not field.metadata["valid"](value):
                raise UsageError(
                    f"is {shown(value)}",
                    f"it must be {field.metadata['must']}",
                    fields=[field.name],
                )
            # frozen: object.__setattr__ is how a frozen dataclass normalises its own fields
            object.__setattr__(self, field.name, value)
        if self.minutes is not None or self.until_accuracy is not None:
            # they decide when the training ends, so a number of epochs would have no meaning
            object.__setattr__(self, "epochs", None)
        elif self.epochs is None:
            raise UsageError(
                "the recipe has no length", todo="give epochs, minutes or until_accuracy"
            )
        self._check_backbone()
        pretrained = self._info.family == PRETRAINED
        if self.epochs == 0 and not pretrained:
            raise UsageError("is 0", "it must be at least 1", fields=["epochs"])
        if pretrained:
            object.__setattr__(self, "start", "pretrained")
            if self.fine_tune == "none" and self.epochs is not None:
                object.__setattr__(self, "epochs", 0)
        elif self.start == "pretrained":
            raise UsageError(
                f"the model {self.model} is not a pretrained one",
                todo="give start scratch, or one of the models efficientnet-lite0, 1 and 2",
            )
        optimizer = OPTIMIZERS[self.optimizer]
        if self.lr is None:
            object.__setattr__(self, "lr", optimizer.default_lr)
        if not optimizer.suits(self._info.family):
            suited = [name for name, info in OPTIMIZERS.items() if info.suits(self._info.family)]
            raise UsageError(
                f"the model {self.model} cannot be trained with {self.optimizer}",
                f"{optimizer.title} is for the {' and '.join(optimizer.families or ())} networks",
                f"use {' or '.join(suited)}",
            )
        least = self._info.minimum_size  # raises for an unknown model
        if self.image_size is not None and self.image_size < least:
            raise UsageError(
                f"is {self.image_size}",
                f"the model {self.model} needs at least {least}",
                fields=["image_size"],
            )

    def _check_backbone(self) -> None:
        """Set what follows from a backbone: only the layer on its features is trained."""
        if self.backbone is not None:
            if self.fine_tune == "all":
                raise UsageError(
                    "is all", "the layers of a backbone are not trained", fields=["fine_tune"]
                )
            object.__setattr__(self, "model", ENCODER)
            object.__setattr__(self, "fine_tune", "none")
            return
        given = [name for name in self.to_dict() if name.startswith("backbone_")]
        given = [name for name in given if getattr(self, name) is not None]
        if given:
            raise UsageError("is given without a backbone", fields=given[:1])
        if self.model == ENCODER:
            raise UsageError("is missing", f"the model {ENCODER} needs one", fields=["backbone"])

    @classmethod
    def preset(cls, name: str, /, **changes: Any) -> Recipe:
        """Return the recipe ``name`` of ``PRESETS`` with ``changes``.

        With ``minutes`` or ``until_accuracy`` and without ``model``, a fast recipe chooses the
        network that fits. For ``until_accuracy`` a tenth of the images is held out.

        Raises
        ------
        UsageError
            There is no such recipe or field, a value is invalid, or ``epochs`` is given together
            with ``minutes`` or ``until_accuracy``.

        Examples
        --------
        >>> Recipe.preset("fast", minutes=5).model
        'auto'
        """
        if name not in PRESETS:
            known = ", ".join(sorted(PRESETS))
            raise UsageError(
                f"there is no recipe {name!r}", todo=f"choose one of {known}, or give a YAML file"
            )
        return PRESETS[name].budgeted(**changes)

    def budgeted(self, **changes: Any) -> Recipe:
        """Return the recipe with changes, which may include a budget; see ``preset``."""
        asked = {name: value for name, value in changes.items() if value is not None}
        budget = [name for name in ("minutes", "until_accuracy") if name in asked]
        if "epochs" in asked and budget:
            raise UsageError(
                "are both given", todo="give one of them", fields=["epochs", budget[0]]
            )
        if "epochs" in asked:
            changes |= {"minutes": None, "until_accuracy": None}
        if budget and self._info.family == "fast":
            changes.setdefault("model", AUTO)
        if "until_accuracy" in asked and self.validate_on == "holdout":
            changes.setdefault("validation_fraction", max(self.validation_fraction, 0.1))
        return self.replace(**changes)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recipe:
        """Read a recipe from a YAML file; missing fields have their default values.

        Without ``name`` the recipe is named after the file. The path of a backbone is relative to
        the folder of the file.

        Raises
        ------
        UsageError
            The file is not YAML, or has an unknown field or an invalid value.
        PeewitError
            The file cannot be read.
        """
        path = Path(path)
        values = read_values(path, typing.get_type_hints(cls))
        if isinstance(values.get("backbone"), str):
            values["backbone"] = str(path.parent / values["backbone"])
        try:
            return cls(name=values.pop("name", path.stem)).replace(**values)
        except UsageError as error:
            raise UsageError(f"cannot use the recipe {path}", str(error)) from error

    @property
    def by_epochs(self) -> bool:
        """Whether the training ends after ``epochs``, and not by time or accuracy."""
        return self.epochs is not None

    @property
    def head_only(self) -> bool:
        """Whether only the last layer of a pretrained network is fitted."""
        return self.start == "pretrained" and (self.epochs == 0 or self.fine_tune == "none")

    def steps(self, images: int) -> int:
        """Return the number of steps in an epoch of ``images`` training images.

        The last batch may be smaller. With Muon it is left out, because the fast networks' batch
        normalisation forgets quickly; and with Adam if it would be a single image.

        >>> Recipe(batch_size=32).steps(100), Recipe.preset("fast", batch_size=32).steps(100)
        (4, 3)
        """
        whole, rest = divmod(images, self.batch_size)
        full_batches = OPTIMIZERS[self.optimizer].full_batches
        no_rest = full_batches or (rest == 1 and self._info.family == "fast")
        return whole + (rest > 0 and not (whole and no_rest))

    @property
    def _info(self) -> ModelInfo:
        return find(NETWORKS[0].model if self.model == AUTO else self.model)

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name, ready for YAML or JSON."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """Return the recipe in the format of ``from_yaml``."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        return text

    def replace(self, **changes: Any) -> Recipe:
        """Return the recipe with other values for some fields.

        Raises
        ------
        UsageError
            There is no such field, or a value is invalid.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=3)
                raise UsageError(
                    f"a recipe has no field {name!r}",
                    todo=f"did you mean {' or '.join(close)}?"
                    if close
                    else f"it has {', '.join(known)}",
                )
        return dataclasses.replace(self, **changes)


# airbench94 with Muon (arXiv 2404.00498, kellerjordan.github.io/posts/muon), with batches of 250
# instead of 2,000: as fast on a CPU, and more steps (benchmarks/recipe_parts.py).
_FAST = Recipe(
    name="fast",
    model="fast-l",
    epochs=8,
    batch_size=250,
    optimizer="muon",
    lr=None,  # from the number of steps
    schedule="linear",
    label_smoothing=0.2,
    flip="alternating",
    translate=None,  # from the image size
    skip_easy=None,  # from the number of epochs
    class_weights="auto",  # from the number of images in each class
    normalize=True,
    tta=True,
    calibrate=True,
    validation_fraction=0.02,  # only for monitoring; every held-out image is missing in training
)

# Accuracy on held-out pictures of flowers and trashnet at 128 pixels, single runs of 6 to 8 epochs:
# the last layer alone 86.8 and 82.9 %; translation without label smoothing 91.2 % (flowers), with
# it 89.3 % (trashnet); crops without it 89.6 % (flowers), with it 91.6 and 90.1 %. Rates from 1e-4
# to 5e-4 are equally good; 1e-3 forgets too much in short runs.
_PRETRAINED = Recipe(
    name="pretrained",
    model="efficientnet-lite0",
    start="pretrained",
    epochs=0,
    batch_size=32,
    optimizer="adamw",
    lr=OPTIMIZERS["adamw"].default_lr,
    schedule="linear",
    label_smoothing=0.1,
    flip="random",
    random_crop=0.5,
    class_weights="auto",  # from the number of images in each class
    normalize=True,
    calibrate=True,
)

PRESETS: dict[str, Recipe] = {
    "tutorial": Recipe(),
    "fast": _FAST,
    # fast, or pretrained: whichever suits the pictures and the budget
    "auto": _FAST.replace(name="auto", start="auto"),
    "pretrained": _PRETRAINED,
    "best": _FAST.replace(
        name="best", model="fast-xl", epochs=30, translate=4, cutout=12, skip_easy=0.0
    ),
    # for the source digits. Errors on 861 held-out training images (three splits): 5; without
    # translation and with 10 epochs 6; three nearest neighbours 9
    "digits": _FAST.replace(
        name="digits", model="fast-s", epochs=20, flip="none", translate=1, skip_easy=0.0
    ),
}
