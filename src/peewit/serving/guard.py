"""Host, Origin, security headers and timeouts, checked around the whole application.

Any web page can make a browser send requests to a server on loopback. So the Host header must name
this server (otherwise an attacker's domain could be made to resolve to it: DNS rebinding), and a
page that sends requests must have come from it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from peewit.serving.limits import Limits, Refused, too_slow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
RawHeaders = Sequence[tuple[bytes, bytes]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = {
    # Everything is served from here, and no script or style is inline. "blob:" is for the pictures
    # that the user chose.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    # so that the page is up to date after an update of Peewit
    "cache-control": "no-cache",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """ASGI middleware that checks Host and Origin, and adds security headers and timeouts.

    Starlette's TrustedHostMiddleware does not check Origin, cannot allow every IP address, accepts
    a second Host header, and answers in plain text instead of the API's JSON.

    Parameters
    ----------
    app : ASGI application
    names : collection of str
        Host names that requests may use, in addition to those of loopback.
    any_address : bool
        Whether requests may use any IP address as the host. DNS rebinding needs a name, so
        addresses are safe.
    limits : Limits
    """

    def __init__(
        self, app: App, *, names: Collection[str], any_address: bool, limits: Limits
    ) -> None:
        self.app, self.limits = app, limits
        self.names = LOOPBACK | {name.lower() for name in names}
        self.any_address = any_address

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        guarded = _GuardedRequest(receive, send, scope["headers"], self.limits)
        app = self.app
        try:
            self.check(scope["headers"])
        except Refused as refused:
            body = json.dumps({"error": str(refused)})
            app = Response(body, refused.status, media_type="application/json")
        await app(scope, guarded.receive, guarded.send)

    def check(self, headers: RawHeaders) -> None:
        """Refuse requests that another site's page may have sent.

        Raises
        ------
        Refused
            403: Host is not a name of this server, or Origin differs from Host.
        """
        hosts, origins = (
            [value.decode("latin-1").lower() for name, value in headers if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if len(hosts) > 1:
            raise Refused(403, "the request has more than one Host header", "", "send only one")
        host = hosts[0] if hosts else ""
        if not self._allowed(_host_name(host)):
            raise Refused(
                403,
                "the Host header does not name this server",
                f"it is {host[:100]!r}",
                "use the address that peewit serve printed, or start it with --allow-host NAME",
            )
        if any(_origin_host(origin) != host for origin in origins):
            raise Refused(
                403, "cross-origin requests are not allowed", "", "use this server's own page"
            )

    def _allowed(self, name: str) -> bool:
        if name in self.names:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host_name(host: str) -> str:
    """Return the name or address in a Host header, without the port; "" if it is invalid.

    >>> _host_name("localhost:8000"), _host_name("[::1]:8000"), _host_name("a@b"), _host_name("::1")
    ('localhost', '::1', '', '')
    """
    try:
        parts = urlsplit(f"//{host}")
        # an invalid port raises only when it is read
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def _origin_host(origin: str) -> str:
    """Return host and port of an Origin header; "" if it is invalid.

    >>> _origin_host("http://localhost:8000"), _origin_host("null"), _origin_host("http://[")
    ('localhost:8000', '', '')
    """
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class _GuardedRequest:
    """Both ends of one request, with timeouts and the security headers added."""

    def __init__(
        self, receive: Receive, send: Send, raw_headers: RawHeaders, limits: Limits
    ) -> None:
        headers = dict(raw_headers)
        self._receive, self._send, self._limits = receive, send, limits
        self._deadline = asyncio.get_running_loop().time() + limits.request_seconds
        # whether part of the body is still unread
        self._more = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._awaits_continue = headers.get(b"expect", b"").lower() == b"100-continue"

    async def receive(self) -> Message:
        """Return the next piece of the request.

        Raises
        ------
        Refused
            408: the client takes too long.
        """
        if not self._more:
            # the next message is the disconnect, which may take as long as the response
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        self._awaits_continue = False
        try:
            async with asyncio.timeout(max(0.0, min(self._limits.seconds, left))):
                message = await self._receive()
        except TimeoutError:
            self._deadline = 0.0
            raise too_slow() from None
        self._more = bool(message.get("more_body"))
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the response."""
        if message["type"] == "http.response.start":
            await self._drain()
            extra = [*_HEADERS, *([(b"connection", b"close")] if self._more else [])]
            message["headers"] = [*message.get("headers", []), *extra]
        await self._send(message)

    async def _drain(self) -> None:
        """Read the rest of the body, because most clients read the response only after sending it.

        Up to the limit of a body, and not if the client is waiting for "100 Continue".
        """
        count = 0
        try:
            while self._more and not self._awaits_continue and count <= self._limits.body:
                count += len((await self.receive()).get("body", b""))
        except Refused:
            pass
