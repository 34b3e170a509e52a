"""The API conforms to its OpenAPI description, checked with requests from schemathesis."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode

from peewit.runs.run import Run


def _file(shade: int, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(stream, kind)
    return stream.getvalue()


for media_type, kind in (
    ("image/png", "PNG"),
    ("image/jpeg", "JPEG"),
    ("application/octet-stream", "PNG"),
):
    files = st.integers(0, 255).map(lambda shade, kind=kind: _file(shade, kind))
    schemathesis.openapi.media_type(media_type, files)


@pytest.fixture(scope="module")
def api(served: Run, start: Callable[..., Any]) -> schemathesis.BaseSchema:
    """Return the OpenAPI schema of a running server."""
    return schemathesis.openapi.from_url(start(served.path).url + "openapi.json")


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/api/predict", "POST", GenerationMode.POSITIVE),
        ("/api/predict", "POST", GenerationMode.NEGATIVE),
        # these take no parameters, so there are no invalid requests
        ("/api/model", "GET", GenerationMode.POSITIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
        ("/metrics", "GET", GenerationMode.POSITIVE),
    ],
)
def test_responses_conform_to_the_schema(
    api: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
) -> None:
    operation = api[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate()

    check()


def test_all_routes_are_described(api: schemathesis.BaseSchema) -> None:
    found = {(one.ok().path, one.ok().method.upper()) for one in api.get_all_operations()}
    assert found == {
        ("/api/predict", "POST"),
        ("/api/model", "GET"),
        ("/healthz", "GET"),
        ("/metrics", "GET"),
    }
