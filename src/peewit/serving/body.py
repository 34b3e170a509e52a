"""Reading request bodies, and the pictures in them. Nothing in them is trusted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from peewit.serving.limits import Limits, Refused, too_busy, too_large, too_many

FORM = "multipart/form-data"
RAW = ("application/octet-stream", "image/")
MAX_NAME_LENGTH = 200

# The parser logs malformed forms. Clients could fill the log with them, and a server whose stderr
# is a pipe that nobody reads would block once the pipe is full.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Upload:
    """A picture file as the client sent it."""

    name: str
    content: bytes


class Buffer:
    """The bytes that the bodies of all requests hold in memory.

    Parameters
    ----------
    limit : int
        Most bytes at one time.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    @contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves bytes until the end of the block.

        The function raises Refused, status 429, if the buffer is full.
        """
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            if self.held + count > self.limit:
                raise too_busy()
            self.held += count
            reserved += count

        try:
            yield reserve
        finally:
            self.held -= reserved


async def read_body(
    stream: AsyncIterator[bytes], length: str | None, limits: Limits, reserve: Callable[[int], None]
) -> bytes:
    """Return the whole body; stop reading as soon as it is too large.

    Starlette's RequestBodyLimitMiddleware answers in plain text, without the limit in it, and does
    not limit what the bodies of all requests hold together.

    Parameters
    ----------
    stream : async iterator of bytes
        The body, piece by piece.
    length : str or None
        The header Content-Length. If it exceeds the limit, nothing is read.
    limits : Limits
    reserve : function
        Reserves memory for a number of bytes, or raises Refused.

    Raises
    ------
    Refused
        413 for a body that is too large, 429 if the bodies of all requests hold too much memory.
    """
    if length is not None and length.isdecimal() and int(length) > limits.body:
        raise too_large(limits.body)
    pieces, count = [], 0
    async for piece in stream:
        count += len(piece)
        if count > limits.body:
            raise too_large(limits.body)
        reserve(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def uploads(body: bytes, content_type: str | None, limits: Limits) -> list[Upload]:
    """Return the pictures in a request, at least one.

    Parameters
    ----------
    body : bytes
        The whole body.
    content_type : str or None
        The header Content-Type: a form with files (``multipart/form-data``), or the bytes of one
        picture (``image/...``, ``application/octet-stream``).
    limits : Limits

    Raises
    ------
    Refused
        415 for any other type, 413 for too many pictures, 422 for an empty body and for a form
        that is damaged, incomplete or without pictures.

    Examples
    --------
    >>> uploads(b"...", "image/png", Limits())
    [Upload(name='picture', content=b'...')]
    """
    kind, options = parse_options_header(content_type)
    name = kind.decode("latin-1").strip().lower()
    if name == FORM:
        return _form(body, options.get(b"boundary", b""), limits)
    if name.startswith(RAW):
        if not body:
            raise Refused(422, "the request has no body", "", "send a picture in it")
        return [Upload("picture", body)]
    raise Refused(
        415,
        "the type of the request is not supported",
        f"its Content-Type is {name[:80]!r}" if name else "it has no Content-Type",
        f"send a form ({FORM}) with files, or one picture as image/png, image/jpeg or {RAW[0]}",
    )


def _form(body: bytes, boundary: bytes, limits: Limits) -> list[Upload]:
    # Starlette's request.form() accepts a form that is cut short, without its last picture; it
    # writes files of more than 1 MB to disk; it rejects pictures without a file name; and it takes
    # 59 ms of the event loop for eight files of 3 MB, where this takes 16 ms.
    form = _Form(limits.pictures)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_part_data": form.add_data,
                "on_part_end": form.end_part,
            },
        )
        parser.write(body)
    except (FormParserError, ValueError) as error:
        raise _malformed() from error
    if not boundary or parser.state != MultipartState.END:
        raise _malformed()
    if not form.uploads:
        raise Refused(422, "the form has no pictures", "", "add files to it")
    return form.uploads


def _malformed() -> Refused:
    return Refused(422, "the form cannot be read", "it is damaged or incomplete", "send it again")


class _Form:
    """Collects the files of a form in the parser's callbacks."""

    def __init__(self, limit: int) -> None:
        self.uploads: list[Upload] = []
        self._limit = limit
        self._name = self._value = b""

    def begin_part(self) -> None:
        if len(self.uploads) == self._limit:
            raise too_many(self._limit)
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def end_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"filename")
        kind = self._headers.get(b"content-type", b"").decode("latin-1").lower()
        if name is None and not kind.startswith(RAW):
            raise Refused(
                422,
                "the form has a field that is not a file",
                "",
                "send pictures as files, and parameters in the query string",
            )
        # for display only: nothing is ever opened by this name
        text = (name or b"").decode("utf-8", "replace")[:MAX_NAME_LENGTH] or "picture"
        self.uploads.append(Upload(text, b"".join(self._data)))
