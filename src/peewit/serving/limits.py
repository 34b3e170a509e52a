"""The limits of a server, and the errors that answer requests beyond them."""

from __future__ import annotations

from dataclasses import dataclass

from peewit.errors import PeewitError
from peewit.images.reader import PIXEL_LIMIT

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one server, so that no client can exhaust its memory or block it.

    Parameters
    ----------
    body : int
        Bytes of one request body.
    buffered : int
        Bytes of all request bodies held in memory at one time.
    pixels : int
        Pixels that the header of one picture may declare.
    pictures : int
        Pictures per request.
    waiting : int
        Prediction requests that are being received, queued or computed at one time.
    seconds : float
        Timeout for the next piece of a request, and for reading the response.
    request_seconds : float
        Timeout for receiving a whole request.
    """

    body: int = 32 * MEGABYTE
    buffered: int = 256 * MEGABYTE
    pixels: int = PIXEL_LIMIT
    pictures: int = 64
    waiting: int = 128
    seconds: float = 10.0
    request_seconds: float = 60.0


class Refused(PeewitError):  # noqa: N818  (the fault is the client's, not the server's)
    """A request that the server refuses.

    Parameters
    ----------
    status : int
        The HTTP status of the response.
    what, why, todo : str
        As in PeewitError.
    """

    def __init__(self, status: int, what: str, why: str = "", todo: str = "") -> None:
        super().__init__(what, why, todo)
        self.status = status


def too_busy() -> Refused:
    """Return the error for a request beyond the server's capacity."""
    return Refused(429, "the server is busy", "too many requests are pending", "retry shortly")


def too_large(limit: int) -> Refused:
    """Return the error for a body of more than ``limit`` bytes."""
    return Refused(
        413,
        "the request is too large",
        f"the limit is {limit / MEGABYTE:g} MB",
        "send fewer or smaller pictures",
    )


def too_many(limit: int) -> Refused:
    """Return the error for more than ``limit`` pictures."""
    return Refused(
        413, "the request has too many pictures", "", f"send at most {limit:,} per request"
    )


def too_slow() -> Refused:
    """Return the error for a request that did not arrive in time."""
    return Refused(408, "the request timed out", "", "send it again")
