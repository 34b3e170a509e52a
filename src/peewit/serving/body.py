"""From the bytes of a request to the pictures in it. The bytes are not trusted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from peewit.serving.limits import Limits, Refused, too_large, too_many, too_many_waiting

FORM = "multipart/form-data"
RAW = ("application/octet-stream", "image/")
LONGEST_NAME = 200

# It notes what is wrong with forms. A stranger could fill the log with that; and a server whose
# stderr nobody reads would stand still when the pipe is full.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Upload:
    """A picture as it came."""

    name: str
    content: bytes


class Buffer:
    """Counts the bytes that all requests hold at one time."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    @contextmanager
    def share(self) -> Iterator[list[int]]:
        """Give a list: whatever is added to it counts as held until the end of the block."""
        mine: list[int] = []
        try:
            yield mine
        finally:
            self.held -= sum(mine)

    def take(self, count: int, mine: list[int]) -> None:
        """Hold ``count`` more bytes.

        Raises
        ------
        Refused
            All requests together hold too many.
        """
        if self.held + count > self.limit:
            raise too_many_waiting()
        self.held += count
        mine.append(count)


async def read_body(
    pieces: AsyncIterator[bytes],
    length: str | None,
    limits: Limits,
    buffer: Buffer,
    mine: list[int],
) -> bytes:
    """Return the whole body; stop reading as soon as it is known to be too large.

    Parameters
    ----------
    pieces : async iterator of bytes
        The body as it comes.
    length : str or None
        What the header Content-Length says.
    limits : Limits
        What one request may have.
    buffer, mine
        What all requests and this one hold.

    Raises
    ------
    Refused
        It is too large, or too much is held already.
    """
    if length is not None and length.isdecimal() and int(length) > limits.body:
        raise too_large(limits.body)
    parts, count = [], 0
    async for piece in pieces:
        count += len(piece)
        if count > limits.body:
            raise too_large(limits.body)
        buffer.take(len(piece), mine)
        parts.append(piece)
    return b"".join(parts)


def uploads(body: bytes, content_type: str | None, limits: Limits) -> list[Upload]:
    """Return the pictures in a request, at least one.

    Parameters
    ----------
    body : bytes
        The whole body.
    content_type : str or None
        The header: a form with files in it (``multipart/form-data``), or the bytes of one picture
        (``image/...``, ``application/octet-stream``).
    limits : Limits
        How many pictures one request may have.

    Raises
    ------
    Refused
        415 for another type, 413 for too many pictures, 422 for a form that is not whole or has
        no pictures in it, and for no body.

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
        "the request is of a type that is not read here",
        f"its Content-Type is {name[:80]!r}" if name else "it has no Content-Type",
        f"send a form ({FORM}) with files in it, or one picture as image/png, image/jpeg or "
        f"{RAW[0]}",
    )


def _form(body: bytes, boundary: bytes, limits: Limits) -> list[Upload]:
    form = _Form(limits)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.part_begins,
                "on_header_field": form.header_field,
                "on_header_value": form.header_value,
                "on_header_end": form.header_ends,
                "on_part_data": form.data,
                "on_part_end": form.part_ends,
            },
        )
        parser.write(body)
    except (FormParserError, ValueError) as error:
        raise _malformed() from error
    if not boundary or parser.state != MultipartState.END:
        raise _malformed()
    if not form.found:
        raise Refused(422, "the form holds no pictures", "", "add files to it")
    return form.found


def _malformed() -> Refused:
    return Refused(
        422, "the form cannot be read", "it is damaged or cut short", "send it again, whole"
    )


class _Form:
    """Gathers the files of a form from what the parser finds."""

    def __init__(self, limits: Limits) -> None:
        self.found: list[Upload] = []
        self._limits = limits

    def part_begins(self) -> None:
        if len(self.found) == self._limits.pictures:
            raise too_many(self._limits.pictures)
        self._field = self._value = b""
        self._disposition = self._kind = b""
        self._content: list[bytes] = []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_ends(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        elif self._field.lower() == b"content-type":
            self._kind = self._value
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def part_ends(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name is None and self._kind.lower().startswith(tuple(kind.encode() for kind in RAW)):
            name = b""  # a picture, though from no file
        if name is None:
            raise Refused(
                422,
                "the form has a field that is not a file",
                "",
                "send pictures as files, and settings in the address",
            )
        # it is only shown: nothing is ever opened by it
        text = name.decode("utf-8", "replace")[:LONGEST_NAME] or "picture"
        self.found.append(Upload(text, b"".join(self._content)))
