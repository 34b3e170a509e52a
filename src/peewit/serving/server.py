"""The server around the application: its socket, its shutdown, and misbehaving connections."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from peewit.errors import PeewitError, reason_of
from peewit.serving.guard import App
from peewit.serving.limits import Limits

# request line and headers: more than any browser sends, even with the cookies that other servers on
# loopback have set
MAX_HEADER_BYTES = 64 * 1024
# how long a shutdown waits for running requests
SHUTDOWN_SECONDS = 30
# how long the threads may then take to finish the picture that each is decoding
CLOSING_SECONDS = 5
# open connections, and connections that the kernel queues until they are accepted
MAX_CONNECTIONS, BACKLOG = 1024, 1024
# connections that asyncio accepts in one turn of the loop, before the limit above can apply to them
ACCEPT_BATCH = 16
# open files that are kept for those and for everything else
SPARE_FILES = 192


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port`` (0: any free port).

    Raises
    ------
    PeewitError
        The port is in use or not permitted, or this machine does not have the address.
    """
    what = f"cannot listen on {host} port {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: empty or too long labels
        raise PeewitError(what, "no such address", "use an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where two servers could share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # so that the port is free right after a server has ended
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        todo = "choose another one with --port, or any free one with --port 0"
        raise PeewitError(what, reason_of(error), todo) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is reachable from this machine only.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(app: App, listener: socket.socket, limits: Limits, cut_off: Callable[[], None]) -> bool:
    """Serve until SIGTERM, SIGINT or Ctrl-C, then finish the running requests.

    A thread that is decoding a picture cannot be stopped. If one is still at work
    ``CLOSING_SECONDS`` after the requests were cut off, the whole process ends. Processes for the
    decoders could be stopped at once, but on two cores a photograph of 30 kB took 8.6 ms in a pool
    of two processes and 5.5 ms in two threads (12 megapixels: the same), and starting them takes
    seconds.

    Parameters
    ----------
    app : App
    listener : socket
    limits : Limits
    cut_off : callable
        Reports unfinished requests before the process ends in this way.

    Returns
    -------
    bool
        Whether all of them were finished. A second Ctrl-C and ``SHUTDOWN_SECONDS`` cut them off;
        the process should then end, and ends in ``CLOSING_SECONDS`` at the latest.
    """
    server = make_server(app, limits)
    server.watchdog = Watchdog(cut_off)
    server.run(sockets=[listener])
    if server.finished:
        server.watchdog.stop()
    else:
        # Python waits for its threads before it ends
        server.watchdog.start(CLOSING_SECONDS)
    return server.finished


class Watchdog:
    """Ends the process after a time, whatever its threads do.

    Parameters
    ----------
    last_words : callable
        Called before the process ends; it may take a second.
    """

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """End the process in ``seconds``, instead of at the time given before."""
        self.stop()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Do not end the process."""
        if self._timer:
            self._timer.cancel()

    def _end(self) -> None:
        # nobody may read them
        words = threading.Thread(target=self._last_words, daemon=True)
        words.start()
        words.join(1)
        os._exit(0)


def make_server(app: App, limits: Limits) -> Server:
    """Return a server of ``app`` that is not running yet."""

    class Protocol(StrictProtocol):
        seconds = limits.seconds
        max_connections = connection_limit()

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        # X-Forwarded-For and the like are not trusted
        proxy_headers=False,
        server_header=False,
        backlog=ACCEPT_BATCH,
        timeout_keep_alive=max(1, round(limits.seconds)),
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config)


def connection_limit() -> int:
    """Return the limit of open connections, after raising the soft limit of open files if needed.

    Without a free file descriptor no connection can be accepted, and asyncio logs each attempt.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(8, min(MAX_CONNECTIONS, files - SPARE_FILES))


class Server(uvicorn.Server):
    """uvicorn's server, except that ``run`` returns after a signal instead of raising it again."""

    finished = True
    watchdog: Watchdog | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.watchdog and not self.should_exit:
            self.watchdog.start(SHUTDOWN_SECONDS + CLOSING_SECONDS)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # asyncio uses one number for the kernel's queue and for the connections that it accepts in
        # one turn. uvicorn passed it ACCEPT_BATCH; the queue may be longer.
        for listener in sockets or []:
            listener.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = time.monotonic()
        await super().shutdown(sockets)
        in_time = time.monotonic() - began < SHUTDOWN_SECONDS
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


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol with timeouts, and with limits for headers and open connections.

    uvicorn waits without a limit for the first byte of a request, for the rest of its headers, and
    for a client that does not read the response; and it accepts headers and trailers of any length.
    """

    seconds = 10.0
    max_connections = MAX_CONNECTIONS
    _timer: asyncio.TimerHandle | None = None
    # Headers and body pieces parsed so far, and the bytes received since the last of them: a head,
    # trailer or chunk header that is not complete yet.
    _parsed = 0
    _unparsed_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._parsed
        super().data_received(data)
        self._unparsed_bytes = self._unparsed_bytes + len(data) if self._parsed == before else 0
        if self.transport.is_closing():
            return
        if self._unparsed_bytes > MAX_HEADER_BYTES and self._between_requests:
            self.send_400_response("The headers of the request are too long.")
        elif self._unparsed_bytes > MAX_HEADER_BYTES:
            self.transport.abort()
        elif self._between_requests and self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._parsed += 1
        # a client may send one request after the other without reading a response
        if not self.flow.write_paused:
            self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._parsed += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._parsed += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # the rest of the response may still be in the buffer, and the client may not read it
        if self.transport.is_closing():
            self._start_timer()

    def timeout_keep_alive_handler(self) -> None:
        # close() would wait until the client has read the last response
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer()

    def resume_writing(self) -> None:
        # if the response is complete, its rest is still being sent, and no other event will follow
        # that starts the timer
        if self._between_requests:
            self._start_timer()
        else:
            self._stop_timer()
        super().resume_writing()

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self.transport.abort()
