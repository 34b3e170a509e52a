"""What the requests of one server share, and the way from a request to its answer."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from peewit.errors import PeewitError
from peewit.pictures import NotAPicture, TooManyPixels
from peewit.processor import usable_cores
from peewit.serving import metrics as counting
from peewit.serving.batching import Batcher
from peewit.serving.body import Buffer, Upload, read_body, uploads
from peewit.serving.engine import Answer, Engine, Prepared
from peewit.serving.limits import Limits, Refused, too_many_waiting
from peewit.serving.schema import describe_model

if TYPE_CHECKING:
    from peewit.run import Run

LOG = logging.getLogger(__name__)


class Service:
    """What the requests of one server share: the network, the threads, the counters."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.limits = limits
        self.engine = Engine(run, limits)
        self.description = describe_model(run, limits)
        self.batcher: Batcher[Prepared, Answer] = Batcher(self._compute, size=self.engine.batch)
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
        return json_answer({"predictions": rows})

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
