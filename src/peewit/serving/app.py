"""The application: its addresses, and what each answers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import peewit
from peewit.errors import PeewitError
from peewit.pictures import NotAPicture, TooManyPixels
from peewit.processor import usable_cores
from peewit.serving import metrics as counting
from peewit.serving import pages
from peewit.serving.batching import Batcher
from peewit.serving.body import Buffer, Upload, read_body, uploads
from peewit.serving.engine import Answer, Engine, Prepared
from peewit.serving.guard import App, Guard
from peewit.serving.limits import Limits, Refused, too_many_waiting
from peewit.serving.schema import (
    REQUEST_BODY,
    Failure,
    Health,
    Model,
    Predictions,
    describe_model,
)

if TYPE_CHECKING:
    from peewit.run import Run

LOG = logging.getLogger(__name__)
FAILURES = {
    403: "Asked by a name that is not this server's, or by a page from elsewhere",
    408: "The request came too slowly",
    413: "Too many bytes, pixels or pictures",
    415: "Neither a form nor a picture of a known kind",
    422: "Damaged or empty, or a setting that makes no sense",
    429: "Too many requests are waiting",
}


class Service:
    """What the requests of one server share: the network, the threads, the counters."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.limits = limits
        self.engine = Engine(run, limits)
        self.description = describe_model(run, limits)
        self.batcher: Batcher[Prepared, Answer] = Batcher(
            self._compute, size=self.engine.batch, threads=self.engine.threads
        )
        self.metrics = counting.Metrics(lambda: self.batcher.waiting)
        self.buffer = Buffer(limits.buffered)
        self.decoders = ThreadPoolExecutor(usable_cores(), "peewit-decode")
        self.inside = 0

    def _compute(self, pictures: Sequence[Prepared]) -> list[Answer]:
        self.metrics.batches.observe(len(pictures))
        self.metrics.pictures.inc(len(pictures))
        return self.engine.answer(pictures)

    def close(self) -> None:
        """Finish what waits."""
        self.decoders.shutdown()
        self.batcher.close()

    async def predict(self, request: Request, top: int | None, heat_map: bool) -> Response:
        """Answer a request for predictions."""
        if self.inside >= self.limits.waiting:
            raise too_many_waiting()
        self.inside += 1
        started = time.perf_counter()
        try:
            with self.buffer.share() as mine:
                headers = request.headers
                body = await read_body(
                    request.stream(), headers.get("content-length"), self.limits, self.buffer, mine
                )
                found = uploads(body, headers.get("content-type"), self.limits)
                return await self._answer(found, top, heat_map)
        finally:
            self.inside -= 1
            self.metrics.seconds.observe(time.perf_counter() - started)

    async def _answer(self, found: list[Upload], top: int | None, heat_map: bool) -> Response:
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        # the decoding thread hands over to the computing one: the loop is woken at the end only
        decoding = self.decoders.submit(self._decode, found, heat_map, future)
        answers = iter(await future)
        prepared = decoding.result()
        good = any(isinstance(picture, Prepared) for picture in prepared)
        rows = []
        for upload, picture in zip(found, prepared, strict=True):
            if isinstance(picture, PeewitError):
                status = _status_of(picture)
                rows.append({"name": upload.name, "error": str(picture), "status": status})
            else:
                rows.append(self._row(upload, picture, next(answers), top))
        first = prepared[0]
        if not good and isinstance(first, PeewitError):
            raise Refused(_status_of(first), first.what, first.why, first.todo)
        return _json({"predictions": rows})

    def _decode(
        self, found: list[Upload], heat_map: bool, future: asyncio.Future[list[Answer]]
    ) -> list[Prepared | PeewitError]:
        try:
            prepared = self.engine.prepare(found, heat_map)
            good = [picture for picture in prepared if isinstance(picture, Prepared)]
            self.batcher.submit(good, future)
        except BaseException as error:
            # whoever waits for the answer must hear of it
            future.get_loop().call_soon_threadsafe(_fail, future, error)
            raise
        return prepared

    def _row(
        self, upload: Upload, picture: Prepared, answer: Answer, top: int | None
    ) -> dict[str, Any]:
        names = self.engine.run.class_names
        best = np.argsort(-answer.probabilities, kind="stable")[:top].tolist()
        values = answer.probabilities.tolist()
        row = {
            "name": upload.name,
            "width": picture.width,
            "height": picture.height,
            "labels": [{"class": names[index], "probability": values[index]} for index in best],
        }
        if answer.heat is not None:
            row["heat_map"] = np.round(answer.heat.astype(np.float64), 3).tolist()
        return row


def _fail(future: asyncio.Future[list[Answer]], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _status_of(error: PeewitError) -> int:
    return {TooManyPixels: 413, NotAPicture: 415}.get(type(error), 422)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(content, ensure_ascii=False)
    return Response(text.encode(), status, headers, "application/json")


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
    guarded = Guard(app, names=names, any_address=any_address, limits=limits)
    return counting.Counted(guarded, service.metrics)


def _add_api(app: FastAPI, service: Service) -> None:
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure, "description": text} for status, text in FAILURES.items()
    }

    @app.post(
        "/api/predict",
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
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"retry-after": "1"} if error.status == 429 else {}
        return _json({"error": str(error)}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _json({"error": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        sentence = {404: "there is nothing here", 405: "this address is not asked that way"}
        content = {"error": sentence.get(error.status_code, error.detail)}
        return _json(content, error.status_code, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def hung_up(_: Request, error: ClientDisconnect) -> Response:
        # nobody reads it
        return Response(status_code=408)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        # what it was stands in the log, not in the answer
        LOG.error(
            "peewit: this is a bug in Peewit: %s: %s, while answering %s",
            type(error).__name__,
            error,
            request.url.path,
            exc_info=error if os.environ.get("PEEWIT_DEBUG") else None,
        )
        return _json({"error": "the server failed; its log says more"}, 500)
