"""The shapes of the API's answers, as its OpenAPI description tells them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

import peewit
from peewit.serving.limits import Limits

if TYPE_CHECKING:
    from peewit.runs.run import Run

PICTURE = {"type": "string", "format": "binary"}

# What /api/predict reads. It is read by hand, so it is described by hand.
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"pictures": {"type": "array", "items": PICTURE, "minItems": 1}},
                "required": ["pictures"],
                "additionalProperties": False,
            },
            "encoding": {"pictures": {"contentType": "image/png, image/jpeg"}},
        },
        "image/png": {"schema": PICTURE},
        "image/jpeg": {"schema": PICTURE},
        "application/octet-stream": {"schema": PICTURE},
    },
}


class Failure(BaseModel):
    """What went wrong, in a sentence."""

    error: str


class Label(BaseModel):
    """A class, and how probable it is."""

    class_: str = Field(alias="class")
    probability: float = Field(ge=0, le=1.000001)


class Prediction(BaseModel):
    """What the network says of one picture, or why it could not be read."""

    name: str = Field(description="the file's name as it was sent")
    width: int | None = Field(None, description="pixels of the picture as it came")
    height: int | None = Field(None, description="pixels of the picture as it came")
    labels: list[Label] | None = Field(None, description="the likeliest class first")
    heat_map: list[list[float]] | None = Field(
        None, description="rows of 0 to 1: how much each place spoke for the likeliest class"
    )
    error: str | None = Field(None, description="why the picture could not be read")
    status: int | None = Field(
        None, description="what the answer's status would be, had this picture been the only one"
    )


class Predictions(BaseModel):
    """One prediction a picture, in the order in which the pictures were sent."""

    predictions: list[Prediction]


class Accuracy(BaseModel):
    """How often the network was right on pictures that it had not seen."""

    share: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1, description="lower end of the 95 % interval")
    high: float = Field(ge=0, le=1, description="upper end of the 95 % interval")
    images: int = Field(description="how many pictures it was tested on")
    split: str = Field(description="test, or validation where there was no test set")
    data: str | None = Field(description="which data")


class Size(BaseModel):
    """What the network reads; pictures of another size are resized whole."""

    height: int
    width: int
    channels: int


class Bounds(BaseModel):
    """What the server takes."""

    bytes: int = Field(description="of one request")
    pixels: int = Field(description="of one picture")
    pictures: int = Field(description="in one request")


class Model(BaseModel):
    """The model that answers."""

    run: str = Field(description="name of the run's folder")
    model: str
    classes: list[str]
    input: Size
    accuracy: Accuracy | None = Field(description="null where the run was never tested")
    limits: Bounds
    peewit: str = Field(description="version of the server")


class Health(BaseModel):
    """That the server is there."""

    status: str


def describe_model(run: Run, limits: Limits) -> Model:
    """Return what ``/api/model`` says of ``run``. No paths of this machine are in it."""
    rule = run.preprocessing
    accuracy = None
    if run.metrics:
        low, high = run.metrics["accuracy_interval"]
        source = run.source.get("source")
        accuracy = Accuracy(
            share=run.metrics["accuracy"],
            low=low,
            high=high,
            images=run.metrics["images"],
            split=run.metrics["split"],
            data=Path(source).name if source else None,
        )
    return Model(
        run=run.path.resolve().name,
        model=run.recipe.model,
        classes=list(run.class_names),
        input=Size(height=rule.height, width=rule.width, channels=rule.channels),
        accuracy=accuracy,
        limits=Bounds(bytes=limits.body, pixels=limits.pixels, pictures=limits.pictures),
        peewit=peewit.__version__,
    )
