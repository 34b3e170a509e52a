"""The application: its routes, its pages, and the responses to failed requests."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterator, Collection, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import peewit
from peewit.serving.guard import App, Guard, Receive, Send
from peewit.serving.limits import Limits, Refused
from peewit.serving.metrics import CONTENT_TYPE, RequestCounter
from peewit.serving.schema import REQUEST_BODY, Failure, Health, Model, Predictions
from peewit.serving.service import Service, failure_response, json_response

if TYPE_CHECKING:
    from peewit.runs.run import Run

STATIC = Path(__file__).parent / "static"
# On Windows the registry can name other types, and with "nosniff" a browser then refuses the file.
STATIC_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
PREDICT = "/api/predict"
# the query parameters in the order in which the page and most clients write them
COMMON_QUERY = re.compile(rb"(?:top=([1-9][0-9]{0,8})(?:&|$))?(?:heat_map=(?:(true)|false))?")
FAILURES = {
    403: "The Host or Origin header is not allowed",
    408: "The request took too long to arrive",
    413: "Too many bytes, pixels or pictures",
    415: "Neither a form nor a picture in a supported format",
    422: "The body is damaged or empty, or a parameter is invalid",
    429: "Too many requests are pending",
}


def create_app(
    run: Run,
    limits: Limits | None = None,
    *,
    names: Collection[str] = (),
    any_address: bool = False,
) -> App:
    """Return the ASGI application that classifies pictures with the network of ``run``.

    Parameters
    ----------
    run : Run
    limits : Limits, optional
    names : collection of str
        Host names that requests may use, in addition to those of loopback.
    any_address : bool
        Whether requests may use any IP address as the host.

    Raises
    ------
    PeewitError
        The run has no weights, or its files are broken.
    """
    limits = limits or Limits()
    service = Service(run, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Peewit",
        description=f"Classifies pictures with the run {service.description.run}.",
        version=peewit.__version__,
        lifespan=lifespan,
        # FastAPI's own pages load scripts from a CDN; /docs here is served from static/
        docs_url=None,
        redoc_url=None,
    )
    _add_pages(app)
    _add_api(app, service)
    _add_failures(app)
    guarded = Guard(FastPath(app, service), names=names, any_address=any_address, limits=limits)
    return RequestCounter(guarded, service.metrics)


def _add_pages(app: FastAPI) -> None:
    for suffix, media_type in STATIC_TYPES.items():
        mimetypes.add_type(media_type, suffix)
    files = StaticFiles(directory=STATIC)

    async def home(request: Request) -> Response:
        return await files.get_response("page.html", request.scope)

    async def docs(request: Request) -> Response:
        return await files.get_response("docs.html", request.scope)

    app.router.routes += [Route("/", home), Route("/docs", docs), Mount("/static", files)]


def _add_api(app: FastAPI, service: Service) -> None:
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure, "description": text} for status, text in FAILURES.items()
    }

    @app.post(
        PREDICT,
        response_model=Predictions,
        responses=failures,
        summary="Classify pictures",
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        top: Annotated[
            int | None, Query(ge=1, description="number of classes to return; default: all")
        ] = None,
        heat_map: Annotated[
            bool, Query(description="whether to return a heat map for the most probable class")
        ] = False,
    ) -> Response:
        """Send a form with one or more files, or the bytes of one picture.

        If some of several pictures cannot be read, each of those has an `error` instead of
        `labels`. If none can be read, the response is the error of the first one.
        """
        return await service.predict(request, top, heat_map)

    @app.get("/api/model", response_model=Model, summary="Describe the model")
    async def model() -> Model:
        return service.description

    @app.get("/healthz", response_model=Health, summary="Health check")
    async def health() -> Health:
        return Health(status="ok")

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return failure_response(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return json_response(
            {"error": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422
        )

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        content = {"error": error.detail.lower()}
        return json_response(content, error.status_code, dict(error.headers or {}))


class FastPath:
    """Answers common prediction requests without FastAPI.

    FastAPI took three fifths of the event loop's time for a small picture. Any other request, and
    any whose query may be invalid, is passed on to FastAPI.

    Parameters
    ----------
    app : FastAPI
    service : Service
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app, self.service = app, service
        self._route = next(route for route in app.routes if getattr(route, "path", "") == PREDICT)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        common = scope["type"] == "http" and scope["path"] == PREDICT and scope["method"] == "POST"
        query = COMMON_QUERY.fullmatch(scope["query_string"]) if common else None
        if query is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = self._route  # RequestCounter reads it
        top, heat_map = query.groups()
        request = Request(scope, receive)
        try:
            response = await self.service.predict(
                request, int(top) if top else None, bool(heat_map)
            )
        except Exception as error:  # refused, or a bug: either way the client needs a response
            response = failure_response(PREDICT, error)
        await response(scope, receive, send)
