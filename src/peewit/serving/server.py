"""The server around the application: its port, its end, and clients that misbehave on the wire."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from peewit.errors import PeewitError, reason_of
from peewit.serving.guard import App
from peewit.serving.limits import Limits

# more than any browser sends, cookies of other servers on loopback included
LARGEST_HEAD = 64 * 1024
# answers that are being computed when the server is told to stop get this long
SECONDS_TO_FINISH = 30
# Connections that are open at one time, and that the system keeps until they are taken up
MOST_OPEN, QUEUE = 1024, 1024
# Connections that are taken up at one time, before the first of them is heard of; and the open
# files that are left to them and to everything else
AT_A_TIME, SPARE_FILES = 16, 192


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any that is free).

    Raises
    ------
    PeewitError
        The port is taken or not allowed, or there is no such address here.
    """
    what = f"cannot listen on {host} port {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # the second of empty or too long labels
        raise PeewitError(what, "there is no such address", "give one of this machine's") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where a port can be shared otherwise
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # a server that ended a moment ago does not keep the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PeewitError(what, reason_of(error), "choose another by --port, or 0") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address to type into a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(app: App, listener: socket.socket, limits: Limits) -> bool:
    """Answer until SIGTERM, SIGINT or Ctrl-C; then finish what is running.

    Returns
    -------
    bool
        Whether all of that was finished: not after a second Ctrl-C, or ``SECONDS_TO_FINISH``.
    """
    server = server_of(app, limits)
    server.run(sockets=[listener])
    return server.finished


def server_of(app: App, limits: Limits) -> Server:
    """Return what serves ``app``, not yet running."""

    class Protocol(CarefulProtocol):
        seconds = limits.seconds
        most_open = most_connections()

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        # behind a proxy the proxy's checks count; here nobody's word is taken for another's
        proxy_headers=False,
        server_header=False,
        backlog=AT_A_TIME,
        timeout_keep_alive=max(1, round(limits.seconds)),
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return Server(config)


def most_connections() -> int:
    """Return how many connections may be open, after asking for as many open files as one may.

    A server without files to open takes no connections up, and asyncio logs each that it cannot.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MOST_OPEN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(8, min(MOST_OPEN, files - SPARE_FILES))


class Server(uvicorn.Server):
    """Ends like any other function when it was told to; uvicorn's raises the signal once more."""

    finished = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # asyncio takes up as many connections in one go as it lets the system keep: fewer here
        for listener in sockets or []:
            listener.listen(QUEUE)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = time.monotonic()
        await super().shutdown(sockets)
        in_time = time.monotonic() - began < SECONDS_TO_FINISH
        self.finished = in_time and not self.force_exit

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class CarefulProtocol(HttpToolsProtocol):
    """Drops clients that keep a connection without using it.

    uvicorn waits without end for the first byte of a request, for the rest of its head, and for a
    client that does not fetch its answer; and it takes a head of any length, trailers included.
    """

    seconds = 10.0
    most_open = MOST_OPEN
    _clock: asyncio.TimerHandle | None = None
    # how often something came to its end or was handed on, and the bytes since the last time
    _steps = 0
    _unused = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most_open:
            transport.abort()
            return
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._steps
        super().data_received(data)
        self._unused = self._unused + len(data) if self._steps == before else 0
        if self.transport.is_closing():
            return
        if self._unused > LARGEST_HEAD and self._between_requests:
            self.send_400_response("The head of the request is too long.")
        elif self._unused > LARGEST_HEAD:
            self.transport.abort()
        elif self._between_requests and self._clock is None:
            self._start_clock()

    def on_headers_complete(self) -> None:
        self._steps += 1
        # a client may send one request after the other and fetch no answer
        if not self.flow.write_paused:
            self._stop_clock()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._steps += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._steps += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # once the client has fetched what is on its way
            self._start_clock()

    def timeout_keep_alive_handler(self) -> None:
        # close() would wait until the client has fetched the last answer
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_clock()

    def resume_writing(self) -> None:
        # of a whole answer the rest is still on its way, and nothing else will start the clock
        if self._between_requests:
            self._start_clock()
        else:
            self._stop_clock()
        super().resume_writing()

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self.seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_late(self) -> None:
        self.transport.abort()
