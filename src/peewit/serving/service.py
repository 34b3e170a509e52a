"""What the requests of one server share, and the way from a request to its answer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from peewit.errors import PeewitError
from peewit.images.reader import NotAPicture, TooManyPixels
from peewit.serving import metrics as counting
from peewit.serving.batching import Batcher
from peewit.serving.body import Buffer, Upload, read_body, uploads
from peewit.serving.decoding import Decoders, Decoding, fail
from peewit.serving.engine import Answer, Engine, Prepared
from peewit.serving.limits import Limits, Refused, too_many_waiting
from peewit.serving.schema import describe_model

if TYPE_CHECKING:
    from peewit.runs.run import Run

LOG = logging.getLogger(__name__)
# From then on it is noticed that a client hangs up, and its pictures are dropped.
SECONDS_UNWATCHED = 1.0


class Service:
    """What the requests of one server share: the network, the threads, the counters."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.limits = limits
        self.engine = Engine(run)
        self.description = describe_model(run, limits)
        self.batcher: Batcher[Prepared, Answer] = Batcher(self._compute, size=self.engine.batch)
        self.metrics = counting.Metrics(lambda: self.batcher.waiting)
        self.buffer = Buffer(limits.buffered)
        self.decoders = Decoders(self.engine, limits.pixels, self.batcher.submit)
        self.inside = 0

    def _compute(self, pictures: Sequence[Prepared]) -> list[Answer]:
        self.metrics.batches.observe(len(pictures))
        self.metrics.pictures.inc(len(pictures))
        return self.engine.answer(pictures)

    def close(self) -> None:
        """Finish what is being computed."""
        self.decoders.close()
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
                return await self._answer(request, found, top, heat_map)
        finally:
            self.inside -= 1
            self.metrics.seconds.observe(time.perf_counter() - started)

    async def _answer(
        self, request: Request, found: list[Upload], top: int | None, heat_map: bool
    ) -> Response:
        loop = asyncio.get_running_loop()
        decoding = Decoding(found, heat_map, loop.create_future())
        # the decoding thread hands over to the computing one: the loop is woken at the end only
        self.decoders.submit(decoding)
        # not at once: it costs more than most answers take
        watch = loop.call_later(SECONDS_UNWATCHED, _watch, request, decoding.future)
        try:
            answers = iter(await decoding.future)
        finally:
            watch.cancel()
        prepared = decoding.prepared
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
        return json_answer({"predictions": rows})

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


def _watch(request: Request, future: asyncio.Future[list[Answer]]) -> None:
    """Let ``future`` end where the client hangs up, so that nobody works for it any more."""

    async def hang_up() -> None:
        # the whole body has been read: what comes now is that the connection is lost
        if (await request.receive())["type"] == "http.disconnect":
            fail(future, ClientDisconnect())

    task = asyncio.ensure_future(hang_up())
    future.add_done_callback(lambda _: task.cancel())


def _status_of(error: PeewitError) -> int:
    return {TooManyPixels: 413, NotAPicture: 415}.get(type(error), 422)


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``content`` as an answer."""
    text = json.dumps(content, ensure_ascii=False)
    return Response(text.encode(), status, headers, "application/json")


def failure(path: str, error: Exception) -> Response:
    """Return the answer to a request to ``path`` that came to ``error``."""
    if isinstance(error, Refused):
        headers = {"retry-after": "1"} if error.status == 429 else {}
        return json_answer({"error": str(error)}, error.status, headers)
    if isinstance(error, ClientDisconnect):
        # nobody reads it
        return Response(status_code=408)
    # what it was stands in the log, not in the answer
    LOG.error(
        "peewit: this is a bug in Peewit: %s: %s, while answering %s",
        type(error).__name__,
        error,
        path,
        exc_info=error if os.environ.get("PEEWIT_DEBUG") else None,
    )
    return json_answer({"error": "the server failed; its log says more"}, 500)
