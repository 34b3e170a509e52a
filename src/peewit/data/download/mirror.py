"""A request to a mirror, and the ways in which it can fail."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import TracebackType

from peewit.data.cifar.archive import MAGIC, looks_like_a_page

_CHUNK = 1 << 18


class MirrorError(Exception):
    """A mirror failed; the message says why."""


class SlowError(MirrorError):
    """The mirror is too slow."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        super().__init__(f"it is slow ({rate / 1000:.0f} kB/s)")


class ConnectionLostError(MirrorError):
    """The connection was lost before the end of the file; resuming may help."""


class NothingLeftError(MirrorError):
    """The mirror has no bytes after those that were already received."""


class Response:
    """A context manager for the response to a request for a file, from byte ``start`` on.

    Parameters
    ----------
    url : str
        http or https.
    start : int
        Number of bytes already received. A server may ignore it: see the attribute.
    stall : float
        Timeout in seconds: how long the mirror may send nothing.

    Attributes
    ----------
    start : int
        Where the content begins: as requested, or 0.
    total : int or None
        Size of the whole file in bytes, if the server reports it.

    Raises
    ------
    MirrorError
        There is no response, or it is not (the rest of) a file.
    """

    def __init__(self, url: str, start: int, stall: float) -> None:
        self.stall = stall
        headers = {"User-Agent": "peewit", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310
            if request.type not in ("http", "https"):
                raise MirrorError("its URL is neither http nor https")
            self.response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
                request, timeout=stall
            )
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise NothingLeftError("it has no more bytes to send") from error
                raise MirrorError(f"it returned {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MirrorError(_reason(error, stall)) from error
        try:
            self.start, self.total = self._extent(start)
        except MirrorError:
            self.response.close()
            raise

    def _extent(self, start: int) -> tuple[int, int | None]:
        """Return where the content begins and the size of the whole file, if known."""
        if self.response.headers.get_content_type() == "text/html":
            raise MirrorError("it sent a web page instead of the archive")
        if self.response.status == http.HTTPStatus.PARTIAL_CONTENT:
            header = self.response.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", header.strip())
            if match is None or int(match[1]) != start:
                raise MirrorError("it sent a different range than requested")
            return start, None if match[2] == "*" else int(match[2])
        if self.response.status != http.HTTPStatus.OK:
            raise MirrorError(f"it returned {self.response.status} {self.response.reason}")
        return 0, self.response.length

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.response.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the content as it arrives.

        Raises
        ------
        ConnectionLostError
            The connection was lost.
        MirrorError
            The mirror sent nothing for too long.
        """
        while True:
            try:
                # read1 does not wait for a full chunk, so that a slow mirror is detected in time
                chunk = self.response.read1(_CHUNK)
            except TimeoutError as error:
                raise MirrorError(_reason(error, self.stall)) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ConnectionLostError(
                    f"the connection was lost ({_reason(error, self.stall)})"
                ) from error
            if not chunk:
                return
            yield chunk


def _reason(error: Exception, stall: float) -> str:
    """Return why a request failed, for the middle of a sentence."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"it sent nothing for {stall:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__


def check_content(first: bytes) -> None:
    """Check from its first bytes that a file is a gzip archive.

    Raises
    ------
    MirrorError
        It is a web page (in a real outage, a mirror sent one with status 200), or something else.
    """
    if looks_like_a_page(first):
        raise MirrorError("it sent a web page instead of the archive")
    if not MAGIC.startswith(first[:2]):
        raise MirrorError("it sent something that is not a gzip archive")
