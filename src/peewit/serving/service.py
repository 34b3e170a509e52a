"""From a prediction request to its response, and what all requests of a server share."""

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
from peewit.serving.body import Buffer, Upload, read_body, uploads
from peewit.serving.engine import Engine, Output, Prepared
from peewit.serving.limits import Limits, Refused, too_busy
from peewit.serving.metrics import Metrics
from peewit.serving.schema import describe_model
from peewit.serving.workers import Batcher, Decoders, Decoding, fail

if TYPE_CHECKING:
    from peewit.runs.run import Run

LOG = logging.getLogger(__name__)
# After this time the server watches for the client hanging up, and then drops its pictures.
WATCH_AFTER_SECONDS = 1.0


class Service:
    """What all requests of one server share: the network, the threads, the metrics."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.limits = limits
        self.engine = Engine(run)
        self.reject_below = run.reject_below if "rejection" in run.metrics else None
        self.description = describe_model(run, limits)
        self.batcher: Batcher[Prepared, Output] = Batcher(self._compute, size=self.engine.batch)
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.buffer = Buffer(limits.buffered)
        self.decoders = Decoders(self.engine, limits.pixels, self.batcher.submit)
        self.pending = 0

    def _compute(self, pictures: Sequence[Prepared]) -> list[Output]:
        self.metrics.batches.observe(len(pictures))
        self.metrics.pictures.inc(len(pictures))
        return self.engine.classify(pictures)

    def close(self) -> None:
        """Finish the running computation and stop the threads."""
        self.decoders.close()
        self.batcher.close()

    async def predict(self, request: Request, top: int | None, heat_map: bool) -> Response:
        """Return the response to a prediction request.

        Parameters
        ----------
        request : Request
        top : int or None
            Number of classes to return; None for all.
        heat_map : bool
            Whether to return heat maps.

        Raises
        ------
        Refused
            The request is beyond the limits, or has no picture that can be read.
        """
        if self.pending >= self.limits.waiting:
            raise too_busy()
        self.pending += 1
        started = time.perf_counter()
        try:
            with self.buffer.reservation() as reserve:
                length = request.headers.get("content-length")
                body = await read_body(request.stream(), length, self.limits, reserve)
                files = uploads(body, request.headers.get("content-type"), self.limits)
                return await self._classify(request, files, top, heat_map)
        finally:
            self.pending -= 1
            self.metrics.seconds.observe(time.perf_counter() - started)

    async def _classify(
        self, request: Request, files: list[Upload], top: int | None, heat_map: bool
    ) -> Response:
        loop = asyncio.get_running_loop()
        decoding = Decoding(files, heat_map, loop.create_future())
        # the decoding thread hands over to the computing thread: the loop wakes only for the result
        self.decoders.submit(decoding)
        # not immediately, because watching costs more than most requests take
        watch = loop.call_later(
            WATCH_AFTER_SECONDS, _watch_for_disconnect, request, decoding.future
        )
        try:
            outputs = iter(await decoding.future)
        finally:
            watch.cancel()
        prepared = decoding.prepared
        rows = []
        for upload, picture in zip(files, prepared, strict=True):
            if isinstance(picture, PeewitError):
                status = _status_of(picture)
                rows.append({"name": upload.name, "error": str(picture), "status": status})
            else:
                rows.append(self._row(upload, picture, next(outputs), top))
        first = prepared[0]
        if isinstance(first, PeewitError) and all("error" in row for row in rows):
            raise Refused(_status_of(first), first.what, first.why, first.todo)
        return json_response({"predictions": rows})

    def _row(
        self, upload: Upload, picture: Prepared, output: Output, top: int | None
    ) -> dict[str, Any]:
        names = self.engine.run.class_names
        best = np.argsort(-output.probabilities, kind="stable")[:top].tolist()
        values = output.probabilities.tolist()
        row: dict[str, Any] = {
            "name": upload.name,
            "width": picture.width,
            "height": picture.height,
            "labels": [{"class": names[index], "probability": values[index]} for index in best],
        }
        if self.reject_below is not None:
            row["rejected"] = max(values) < self.reject_below
        if output.heat is not None:
            row["heat_map"] = np.round(output.heat.astype(np.float64), 3).tolist()
            part = self.engine.run.preprocessing.region(picture.height, picture.width)
            row["heat_map_part"] = part._asdict()
        return row


def _watch_for_disconnect(request: Request, future: asyncio.Future[list[Output]]) -> None:
    """Make ``future`` fail when the client hangs up, so that its pictures are dropped."""

    async def watch() -> None:
        # the whole body has been read, so the next message is the disconnect
        if (await request.receive())["type"] == "http.disconnect":
            fail(future, ClientDisconnect())

    task = asyncio.ensure_future(watch())
    future.add_done_callback(lambda _: task.cancel())


def _status_of(error: PeewitError) -> int:
    return {TooManyPixels: 413, NotAPicture: 415}.get(type(error), 422)


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return ``content`` as a JSON response."""
    text = json.dumps(content, ensure_ascii=False)
    return Response(text.encode(), status, headers, "application/json")


def failure_response(path: str, error: Exception) -> Response:
    """Return the response to a request to ``path`` that failed with ``error``."""
    if isinstance(error, Refused):
        headers = {"retry-after": "1"} if error.status == 429 else {}
        return json_response({"error": str(error)}, error.status, headers)
    if isinstance(error, ClientDisconnect):
        # nobody will read it
        return Response(status_code=408)
    # the details go to the log and not to the client
    LOG.error(
        "peewit: this is a bug in Peewit: %s: %s, while answering %s",
        type(error).__name__,
        error,
        path,
        exc_info=error if os.environ.get("PEEWIT_DEBUG") else None,
    )
    return json_response({"error": "internal server error; the server's log has the details"}, 500)
