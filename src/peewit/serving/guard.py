"""Who may ask, and how long it may take: around the whole application.

A page anywhere on the web can make a browser send requests to a server on loopback. So the name by
which the server was asked must be one of its own (else the name of a stranger could be made to
point here: DNS rebinding), and a page that asks must have come from here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from peewit.serving.limits import Limits, Refused, too_slow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = {
    # Everything comes from here, and nothing is written into the page that could run. "blob:" is
    # for the pictures that the user chose, which never become part of the page.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    # after an update of Peewit the page must be the new one
    "cache-control": "no-cache",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """Checks Host and Origin, adds the headers that make browsers careful, and minds the clock.

    Parameters
    ----------
    app : ASGI application
    names : collection of str
        By which names the server may be asked, besides those of loopback.
    any_address : bool
        Whether it may be asked by any IP address: no name can be made to point at it that way.
    limits : Limits
    """

    def __init__(
        self, app: App, *, names: Collection[str], any_address: bool, limits: Limits
    ) -> None:
        self.app, self.limits = app, limits
        self.names = LOOPBACK | {name.lower() for name in names}
        self.any_address = any_address

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        guarded = _Guarded(receive, send, headers, self.limits)
        try:
            self.check(headers)
        except Refused as refused:
            await guarded.refuse(refused)
        else:
            await self.app(scope, guarded.receive, guarded.send)

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request that a stranger's page may have made.

        Raises
        ------
        Refused
            403: Host is not a name of this server, or Origin is another than Host.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._ours(_name(host)):
            raise Refused(
                403,
                "this server does not answer to the name it was asked by",
                f"the header Host is {host[:100]!r}",
                "ask by its address, or start it with --allow-host NAME",
            )
        origin = headers.get(b"origin")
        if origin is not None and _place(origin.decode("latin-1").lower()) != host:
            raise Refused(403, "pages from elsewhere may not ask this server", "", "use its own")

    def _ours(self, name: str) -> bool:
        if name in self.names:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """Return the name or address in a Host header, without the port.

    >>> _name("localhost:8000"), _name("[::1]:8000"), _name("a@b"), _name("::1")
    ('localhost', '::1', '', '')
    """
    try:
        parts = urlsplit(f"//{host}")
        # asked for, because a wrong port raises only then
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def _place(origin: str) -> str:
    """Return the name and port in an Origin header.

    >>> _place("http://localhost:8000"), _place("null"), _place("http://[")
    ('localhost:8000', '', '')
    """
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class _Guarded:
    """The two ends of one request, with the clock and the headers added."""

    def __init__(
        self, receive: Receive, send: Send, headers: Mapping[bytes, bytes], limits: Limits
    ) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._deadline = asyncio.get_running_loop().time() + limits.request_seconds
        # whether there is something left to read
        self._more = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._asks_first = headers.get(b"expect", b"").lower() == b"100-continue"

    async def receive(self) -> Message:
        """Return the next piece of the request.

        Raises
        ------
        Refused
            408: the client takes too long.
        """
        if not self._more:
            # what comes now is that the client hangs up, and that may take as long as the answer
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        self._asks_first = False
        try:
            async with asyncio.timeout(max(0.0, min(self._limits.seconds, left))):
                message = await self._receive()
        except TimeoutError:
            self._deadline = 0.0
            raise too_slow() from None
        self._more = bool(message.get("more_body"))
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the answer."""
        if message["type"] == "http.response.start":
            await self._drain()
            extra = [*_HEADERS, *([(b"connection", b"close")] if self._more else [])]
            message["headers"] = [*message.get("headers", []), *extra]
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Answer with a sentence."""
        body = json.dumps({"error": str(refused)}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.send(
            {"type": "http.response.start", "status": refused.status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read on, though the answer is known: most clients read it only after they have sent all.

        Not without end; and a client that asked whether to send at all gets the answer at once.
        """
        count = 0
        try:
            while self._more and not self._asks_first and count <= self._limits.body:
                count += len((await self.receive()).get("body", b""))
        except Refused:
            pass
