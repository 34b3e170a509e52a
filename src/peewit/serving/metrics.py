"""The server's metrics, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server.

    Parameters
    ----------
    waiting : function
        Returns the number of pictures in the network's queue.

    Examples
    --------
    >>> metrics = Metrics(lambda: 3)
    >>> metrics.pictures.inc(2)
    >>> text = metrics.text().decode()
    >>> "peewit_pictures_total 2.0" in text, "peewit_waiting_pictures 3.0" in text
    (True, True)
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        # a registry per server, so that two servers in one process do not share counters
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "peewit_requests",
            "Responses by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "peewit_predict_seconds",
            "Latency of prediction requests in seconds",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.pictures = Counter("peewit_pictures", "Pictures classified", registry=self.registry)
        self.batches = Histogram(
            "peewit_batch_pictures",
            "Pictures per batch",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        gauge = Gauge(
            "peewit_waiting_pictures", "Pictures queued for the network", registry=self.registry
        )
        gauge.set_function(waiting)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self.registry)


class RequestCounter:
    """ASGI middleware that counts responses by path and status.

    The path is that of ``scope["route"]``, which FastAPI sets for the API. Pages and unknown paths
    are "other", so that a client cannot create a million labels.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    """

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def count_and_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, count_and_send)
