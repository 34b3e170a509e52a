"""One request to one mirror: what it answers, how fast, and what can be wrong with it."""

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
    """A mirror failed; the text says why."""


class SlowError(MirrorError):
    """It is slower than it may be."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        super().__init__(f"it is slow ({rate / 1000:.0f} kB/s)")


class CutError(MirrorError):
    """The connection ended before the file did; asking for the rest may help."""


class NothingLeftError(MirrorError):
    """It has no bytes after those that are here already."""


class Answer:
    """The answer to a request for a file from byte ``start`` on; a context manager.

    Parameters
    ----------
    url : str
        http or https.
    start : int
        Bytes that are there already. A server may ignore it: see the attribute.
    stall : float
        Seconds without any byte after which the mirror is given up.

    Attributes
    ----------
    start : int
        Where the answer begins: as asked, or 0.
    total : int or None
        Bytes of the whole file, where the server says.

    Raises
    ------
    MirrorError
        No answer, or an answer that is not (the rest of) a file.
    """

    def __init__(self, url: str, start: int, stall: float) -> None:
        self.stall = stall
        headers = {"User-Agent": "peewit", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310
            if request.type not in ("http", "https"):
                raise MirrorError("its address is neither http nor https")
            self.response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
                request, timeout=stall
            )
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise NothingLeftError("it has no more than what is here already") from error
                raise MirrorError(f"it answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MirrorError(_reason(error, stall)) from error
        try:
            self.start, self.total = self._extent(start)
        except MirrorError:
            self.response.close()
            raise

    def _extent(self, start: int) -> tuple[int, int | None]:
        if self.response.headers.get_content_type() == "text/html":
            raise MirrorError("it served a web page instead of the archive")
        if self.response.status == http.HTTPStatus.PARTIAL_CONTENT:
            said = self.response.headers.get("Content-Range", "")
            found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", said.strip())
            if found is None or int(found[1]) != start:
                raise MirrorError("it sent another part than the one asked for")
            return start, None if found[2] == "*" else int(found[2])
        if self.response.status != http.HTTPStatus.OK:
            raise MirrorError(f"it answered {self.response.status} {self.response.reason}")
        return 0, self.response.length

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.response.close()

    def chunks(self) -> Iterator[bytes]:
        """Give what comes, as it comes.

        Raises
        ------
        CutError
            The connection broke.
        MirrorError
            Nothing came for too long.
        """
        while True:
            try:
                # read1: what is there now, so that a slow mirror is noticed in time
                chunk = self.response.read1(_CHUNK)
            except TimeoutError as error:
                raise MirrorError(_reason(error, self.stall)) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise CutError(f"it broke the connection ({_reason(error, self.stall)})") from error
            if not chunk:
                return
            yield chunk


def _reason(error: Exception, stall: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing came for {stall:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__


def check_content(first: bytes) -> None:
    """Tell a gzip archive from anything else by its first bytes.

    Raises
    ------
    MirrorError
        It is a web page (a real outage served one with status 200), or something else.
    """
    if looks_like_a_page(first):
        raise MirrorError("it served a web page instead of the archive")
    if not MAGIC.startswith(first[:2]):
        raise MirrorError("it served something that is not a gzip archive")
