"""The schemas of the API's responses, for its OpenAPI description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

import peewit
from peewit.images.fitting import Fit
from peewit.serving.limits import Limits

if TYPE_CHECKING:
    from peewit.runs.run import Run

PICTURE = {"type": "string", "format": "binary"}

# The body of /api/predict. It is parsed without FastAPI, so FastAPI cannot derive its schema.
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
    """An error message."""

    error: str


class Label(BaseModel):
    """A class and its probability."""

    class_: str = Field(alias="class")
    probability: float = Field(ge=0, le=1.000001)


class Part(BaseModel):
    """A rectangle in a picture, in pixels. With padding it reaches beyond the picture."""

    top: int
    left: int
    height: int
    width: int


class Prediction(BaseModel):
    """The classes of one picture, or why it could not be read."""

    name: str = Field(description="file name, as sent")
    width: int | None = Field(None, description="of the picture as sent, in pixels")
    height: int | None = Field(None, description="of the picture as sent, in pixels")
    labels: list[Label] | None = Field(None, description="most probable class first")
    rejected: bool | None = Field(
        None,
        description="whether it is probably a picture of none of the classes; missing if the run "
        "has no threshold for it",
    )
    heat_map: list[list[float]] | None = Field(
        None, description="rows of values, 0 to 1: support for the most probable class"
    )
    heat_map_part: Part | None = Field(
        None, description="the part of the picture that the heat map covers, as the network sees it"
    )
    error: str | None = Field(None, description="why the picture could not be read")
    status: int | None = Field(None, description="HTTP status if this had been the only picture")


class Predictions(BaseModel):
    """One prediction per picture, in the order of the request."""

    predictions: list[Prediction]


class Accuracy(BaseModel):
    """Accuracy on held-out images."""

    share: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1, description="lower bound of the 95% confidence interval")
    high: float = Field(ge=0, le=1, description="upper bound of the 95% confidence interval")
    images: int = Field(description="number of pictures it was measured on")
    split: str = Field(description="test; validation or cross-validation if there was no test set")
    data: str | None = Field(description="name of the data set")


class Size(BaseModel):
    """The network's input size, and how pictures of another size are fitted into it."""

    height: int
    width: int
    channels: int
    fit: Fit = Field(
        description="with another aspect ratio, a picture is cropped in its longer side, padded "
        "with grey, or stretched"
    )


class Bounds(BaseModel):
    """The server's limits."""

    bytes: int = Field(description="per request")
    pixels: int = Field(description="per picture")
    pictures: int = Field(description="per request")


class Model(BaseModel):
    """The model that the server uses."""

    run: str = Field(description="name of the run's folder")
    model: str
    classes: list[str]
    input: Size
    accuracy: Accuracy | None = Field(description="null if the run was never tested")
    limits: Bounds
    peewit: str = Field(description="version of Peewit")


class Health(BaseModel):
    """The state of the server."""

    status: str


def describe_model(run: Run, limits: Limits) -> Model:
    """Return the response of ``/api/model``, which contains no paths of this machine."""
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
        input=Size(height=rule.height, width=rule.width, channels=rule.channels, fit=rule.fit),
        accuracy=accuracy,
        limits=Bounds(bytes=limits.body, pixels=limits.pixels, pictures=limits.pictures),
        peewit=peewit.__version__,
    )
