"""What a server counts of itself, in the form that Prometheus reads."""

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
    """Counters of one server.

    Parameters
    ----------
    waiting : function
        Says how many pictures wait for the network now.

    Examples
    --------
    >>> metrics = Metrics(lambda: 3)
    >>> metrics.pictures.inc(2)
    >>> text = metrics.text().decode()
    >>> "peewit_pictures_total 2.0" in text, "peewit_waiting_pictures 3.0" in text
    (True, True)
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        # one of its own, so that two servers in one process do not meet
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "peewit_requests",
            "Requests answered, by path and status",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "peewit_predict_seconds",
            "Seconds from a request for predictions to its answer",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.pictures = Counter(
            "peewit_pictures", "Pictures that were classified", registry=self.registry
        )
        self.batches = Histogram(
            "peewit_batch_pictures",
            "Pictures that went through the network together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        gauge = Gauge(
            "peewit_waiting_pictures", "Pictures that wait for the network", registry=self.registry
        )
        gauge.set_function(waiting)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return all of them as text."""
        return generate_latest(self.registry)


class Counted:
    """Counts the answers of an application.

    Parameters
    ----------
    app : ASGI application
        Sets ``scope["route"]``, as Starlette's router does: addresses that are not known count as
        one, so that a stranger cannot make up a million of them.
    metrics : Metrics
    """

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)
