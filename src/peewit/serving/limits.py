"""What a server takes, and what it refuses: in numbers, and in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from peewit.errors import PeewitError
from peewit.images.reader import PIXEL_LIMIT

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server, so that no client can fill its memory or keep it waiting.

    Parameters
    ----------
    body : int
        Bytes of one request.
    buffered : int
        Bytes of all requests that are held at one time.
    pixels : int
        Pixels that one picture may declare.
    pictures : int
        Pictures in one request.
    waiting : int
        Requests that are read, waiting or computed at one time.
    seconds : float
        How long a client may take for the next piece of its request, or to fetch its answer.
    request_seconds : float
        How long a client may take for its whole request.
    """

    body: int = 32 * MEGABYTE
    buffered: int = 256 * MEGABYTE
    pixels: int = PIXEL_LIMIT
    pictures: int = 64
    waiting: int = 128
    seconds: float = 10.0
    request_seconds: float = 60.0


class Refused(PeewitError):  # noqa: N818  (it is the client that did something wrong)
    """A request that is answered with a sentence instead of a prediction.

    Parameters
    ----------
    status : int
        The HTTP status of the answer.
    what, why, todo : str
        As in PeewitError.
    """

    def __init__(self, status: int, what: str, why: str = "", todo: str = "") -> None:
        super().__init__(what, why, todo)
        self.status = status


def too_many_waiting() -> Refused:
    """Return the answer of a server that has enough to do."""
    return Refused(429, "the server is busy", "too many requests are waiting", "try again soon")


def too_large(limit: int) -> Refused:
    """Return the answer to a request of more than ``limit`` bytes."""
    return Refused(
        413,
        "the request is too large",
        f"it has more than {limit / MEGABYTE:g} MB",
        "send fewer or smaller pictures",
    )


def too_many(limit: int) -> Refused:
    """Return the answer to a request of more than ``limit`` pictures."""
    return Refused(
        413, "the request holds too many pictures", "", f"send at most {limit:,} at a time"
    )


def too_slow() -> Refused:
    """Return the answer to a client that does not send what it announced."""
    return Refused(408, "the request came too slowly", "", "send it again")
