"""The application: its addresses, and what each answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import peewit
from peewit.serving import metrics as counting
from peewit.serving import pages
from peewit.serving.guard import App, Guard, Receive, Send
from peewit.serving.limits import Limits, Refused
from peewit.serving.schema import REQUEST_BODY, Failure, Health, Model, Predictions
from peewit.serving.service import Service, failure, json_answer

if TYPE_CHECKING:
    from peewit.runs.run import Run

PREDICT = "/api/predict"
# the settings of a request, in the order in which the page and most programs write them
USUAL = re.compile(rb"(?:top=([1-9][0-9]{0,8})(?:&|$))?(?:heat_map=(?:(true)|false))?")
FAILURES = {
    403: "Asked by a name that is not this server's, or by a page from elsewhere",
    408: "The request came too slowly",
    413: "Too many bytes, pixels or pictures",
    415: "Neither a form nor a picture of a known kind",
    422: "Damaged or empty, or a setting that makes no sense",
    429: "Too many requests are waiting",
}


def create_app(
    run: Run,
    limits: Limits | None = None,
    *,
    names: Collection[str] = (),
    any_address: bool = False,
) -> App:
    """Return the application that answers with the network of ``run``.

    Parameters
    ----------
    run : Run
    limits : Limits, optional
    names : collection of str
        By which names it may be asked, besides those of loopback.
    any_address : bool
        Whether it may be asked by any IP address.

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
        # those pages come from elsewhere on the web; /docs here is one of our own
        docs_url=None,
        redoc_url=None,
    )
    pages.add_to(app)
    _add_api(app, service)
    _add_failures(app)
    guarded = Guard(Shortcut(app, service), names=names, any_address=any_address, limits=limits)
    return counting.Counted(guarded, service.metrics)


def _add_api(app: FastAPI, service: Service) -> None:
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure, "description": text} for status, text in FAILURES.items()
    }

    @app.post(
        PREDICT,
        response_model=Predictions,
        responses=failures,
        summary="Say what pictures show",
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        top: Annotated[
            int | None, Query(ge=1, description="how many classes to name; all by default")
        ] = None,
        heat_map: Annotated[
            bool, Query(description="whether to say which places spoke for the likeliest class")
        ] = False,
    ) -> Response:
        """Send a form with one or more files, or the bytes of one picture.

        A picture among several that cannot be read has an `error` in place of its labels. If none
        can be read, the answer is the first one's error.
        """
        return await service.predict(request, top, heat_map)

    @app.get("/api/model", response_model=Model, summary="Say which model answers")
    async def model() -> Model:
        return service.description

    @app.get("/healthz", response_model=Health, summary="Say that the server is there")
    async def health() -> Health:
        return Health(status="ok")

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=counting.CONTENT_TYPE)


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return failure(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return json_answer({"error": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        sentence = {404: "there is nothing here", 405: "this address is not asked that way"}
        content = {"error": sentence.get(error.status_code, error.detail)}
        return json_answer(content, error.status_code, dict(error.headers or {}))


class Shortcut:
    """Takes the usual requests for predictions past the framework.

    It took three fifths of the event loop's time for a small picture. Whatever is unusual, and so
    may have to be refused, it gets.

    Parameters
    ----------
    app : FastAPI
    service : Service
    """

    def __init__(self, app: FastAPI, service: Service) -> None:
        self.app, self.service = app, service
        self._route = next(route for route in app.routes if getattr(route, "path", "") == PREDICT)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        usual = scope["type"] == "http" and scope["path"] == PREDICT and scope["method"] == "POST"
        settings = USUAL.fullmatch(scope["query_string"]) if usual else None
        if settings is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = self._route  # it is counted by
        top, heat_map = settings.groups()
        request = Request(scope, receive)
        try:
            answer = await self.service.predict(request, int(top) if top else None, bool(heat_map))
        except Exception as error:  # a bug, or a request that is refused: it has to be answered
            answer = failure(PREDICT, error)
        await answer(scope, receive, send)
