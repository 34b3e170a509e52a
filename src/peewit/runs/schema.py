"""The contents of ``run.json`` and ``metrics.json``: required and optional keys, and their types.

A run folder may have been written by an older version or edited by hand. Errors are reported when
the run is opened, not when a value is first used. Other keys are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from peewit.system.files import damaged
from peewit.system.validation import Count, Loss, Quantity, Share, validated

# A sum over a confusion matrix of these still fits into an int64
Images = Annotated[int, Meta(ge=0, le=10**12)]
Pixels = Annotated[int, Meta(ge=1, le=2**16)]
PerChannel = Annotated[list[Annotated[float, Meta(ge=-1e6, le=1e6)]], Meta(min_length=1)]
Interval = Annotated[list[float], Meta(min_length=2, max_length=2)]
# The operating system ends a path at a zero
LocalPath = Annotated[str, Meta(pattern=r"^[^\0]*\Z")]


class _Preprocessing(TypedDict):
    height: Pixels
    width: Pixels
    channels: Literal[1, 3]
    mean: PerChannel
    std: PerChannel
    fit: NotRequired[Literal["crop", "pad", "stretch"]]


class _Source(TypedDict):
    source: NotRequired[LocalPath]
    data: NotRequired[LocalPath | None]
    coarse: NotRequired[bool]
    group: NotRequired[str | None]


class _Dataset(TypedDict):
    # All optional: an imported run only has its origin
    origin: NotRequired[str]
    images: NotRequired[dict[str, Images]]
    fingerprints: NotRequired[dict[str, str]]


class _Backbone(TypedDict):
    file: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    features: Count


class _Kind(TypedDict):
    kind: str
    pictures: Images
    sets: list[list[str]]


class _Findings(TypedDict):
    notes: list[str]
    imbalance: Quantity
    kinds: list[_Kind]


class Facts(TypedDict):
    """The contents of ``run.json``."""

    finished: bool
    class_names: Annotated[list[str], Meta(min_length=2)]
    preprocessing: _Preprocessing
    source: _Source
    dataset: _Dataset
    environment: dict[str, str | int | float | bool | None]
    unsure_below: NotRequired[Share]
    # Missing in older runs, and in those trained on arrays
    findings: NotRequired[_Findings]
    imported: NotRequired[dict[str, Any]]
    backbone: NotRequired[_Backbone]


class _Bin(TypedDict):
    images: Images
    confidence: Quantity
    accuracy: Share


class _Scores(TypedDict):
    name: str
    images: Images
    predicted: Images
    precision: Quantity
    recall: Quantity
    f1: Quantity


class _Scaling(TypedDict):
    temperature: Quantity
    images: Images
    error_before: Quantity
    error_after: Quantity


class _ByFeatures(TypedDict):
    threshold: Annotated[float, Meta(ge=-1e9, le=1e9)]
    rejected: Share
    accuracy: Share | None


class _Rejection(TypedDict):
    threshold: Share
    images: Count
    rejected: Share
    accuracy: Share | None
    by_features: NotRequired[_ByFeatures]


class _Copies(TypedDict):
    images: Images
    indices: list[Count]
    accuracy_without: Share | None
    interval_without: NotRequired[Interval]
    names: NotRequired[list[str]]
    groups: NotRequired[bool]


class Metrics(TypedDict):
    """The contents of ``metrics.json``."""

    accuracy: Share
    accuracy_interval: Interval
    loss: Loss
    images: Annotated[int, Meta(ge=1, le=10**12)]
    split: Literal["test", "validation", "cross-validation"]
    top3: Share
    calibration_error: Quantity
    classes: list[_Scores]
    confusion: list[list[Images]]
    # Missing in older runs, or only recorded by some recipes
    balanced_accuracy: NotRequired[Share]
    reliability: NotRequired[list[_Bin]]
    fingerprint: NotRequired[str]
    batch_norm_images: NotRequired[Count]
    training_images: NotRequired[Count]
    training_seconds: NotRequired[Quantity]
    flops: NotRequired[Quantity]
    gflops: NotRequired[Quantity]
    share_of_best: NotRequired[Quantity]
    single_view_accuracy: NotRequired[Share]
    temperature_scaling: NotRequired[_Scaling]
    rejection: NotRequired[_Rejection]
    also_in_training: NotRequired[_Copies]
    fold_accuracies: NotRequired[list[Share]]


def check_metrics(file: Path, metrics: dict[str, Any], classes: int) -> None:
    """Validate the contents of ``metrics.json``.

    Parameters
    ----------
    file : Path
        The file that they were read from, for the error message.
    metrics : dict
    classes : int
        Number of classes of the model.

    Raises
    ------
    PeewitError
        A key is missing, or its value has another type or another number of classes.
    """
    found = validated(file, metrics, Metrics)
    rows = found["confusion"]
    lengths = [("classes", len(found["classes"])), ("confusion", len(rows))]
    for name, length in (*lengths, *(("confusion", len(row)) for row in rows)):
        if length != classes:
            raise damaged(file, f"{name} has {length} of {classes} classes")
