"""The real server: misbehaving clients, shutdown, and failures to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from peewit.__main__ import main
from peewit.images.scaled import read_sized
from peewit.runs.run import Run
from peewit.serving.app import create_app
from peewit.serving.limits import Limits
from peewit.serving.server import MAX_HEADER_BYTES, bind, connection_limit, make_server

Start = Callable[..., Any]
POST = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
SMALL = 4096  # bytes
SHORT = Limits(seconds=1, request_seconds=2)


def with_server(
    run: Run, limits: Limits, talk: Callable[[int], Awaitable[None]], buffer: int = 0
) -> None:
    """Run ``talk(port)`` and a server in one loop; the server must still answer afterwards.

    ``buffer`` is the size of the server's send buffer in bytes; 0 leaves it to the kernel.
    """

    async def both() -> None:
        server = make_server(create_app(run, limits), limits)
        with bind("127.0.0.1", 0) as listener:
            if buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            port = listener.getsockname()[1]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await talk(port)
                answer = await ask(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"}")
                assert b'{"status":"ok"}' in answer
            finally:
                server.should_exit = True
                await serving
        assert not server.server_state.connections

    asyncio.run(both())


async def ask(port: int, message: bytes, until: bytes = b"") -> bytes:
    """Send bytes; return the response up to ``until``, or until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    parts = bytearray()
    try:
        writer.write(message)
        while part := await asyncio.wait_for(reader.read(65536), 60):
            parts += part
            if until and until in parts:
                break
    except ConnectionError:
        pass  # cut off: return what has arrived
    writer.close()
    return bytes(parts)


def test_clients_that_send_too_little_are_dropped(served: Run) -> None:
    async def talk(port: int) -> None:
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        nothing, half, kept, stalled, unfinished = await asyncio.gather(
            ask(port, b""),
            ask(port, b"GET / HTT"),
            ask(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ask(port, POST + b"Content-Length: 50\r\n\r\nab"),
            ask(port, chunked + b"2\r\nab\r\n"),
        )
        assert (nothing, half) == (b"", b"")
        # answered, and dropped because no other request followed
        assert kept.startswith(b"HTTP/1.1 200 ")
        for answer in (stalled, unfinished):
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer
            assert answer.endswith(b'{"error": "the request timed out; send it again"}')

    with_server(served, SHORT, talk)


def test_a_body_that_trickles_in_times_out(served: Run) -> None:
    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")

        async def trickle() -> None:
            for _ in range(1000):
                writer.write(b"x")
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(trickle())
        answer = await asyncio.wait_for(reader.read(), 60)
        sending.cancel()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")

    with_server(served, SHORT, talk)


def test_clients_that_do_not_read_responses_are_dropped(served: Run) -> None:
    async def talk(port: int) -> None:
        question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        with pytest.raises(ConnectionError):
            await send(writer, question, 10**6)

    with_server(served, SHORT, talk)


def test_clients_that_do_not_read_the_last_response_are_dropped(served: Run) -> None:
    async def talk(port: int) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            client.connect(("127.0.0.1", port))
            # more than the kernel buffers, and less than makes the server pause writing
            question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
            client.sendall((question + b"\r\n") * 5 + question + b"Connection: close\r\n\r\n")
            await asyncio.sleep(3 * SHORT.seconds)
            client.settimeout(60)
            answer = b""
            with suppress(ConnectionError):
                while part := client.recv(65536):
                    answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 200 ") < 6

    with_server(served, SHORT, talk, buffer=SMALL)


async def send(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    """Send a piece repeatedly, as long as the server accepts it."""
    for _ in range(times):
        writer.write(piece)
        await asyncio.wait_for(writer.drain(), 60)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /",
        # trailers have the same limit as headers
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["header", "address", "trailer", "chunk"],
)
def test_endless_headers_are_cut_off(served: Run, beginning: bytes) -> None:
    async def talk(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        # far more than the limit, because the kernel buffers some megabytes
        with pytest.raises(ConnectionError):
            await send(writer, b"a" * 10_000, 500 * MAX_HEADER_BYTES // 10_000)
        writer.close()

    with_server(served, Limits(), talk)


def test_the_header_limit_applies_to_each_request(
    served: Run, encode: Callable[..., bytes]
) -> None:
    async def talk(port: int) -> None:
        long = b"X: " + b"a" * (MAX_HEADER_BYTES * 2 // 3) + b"\r\n"
        body = encode()
        length = b"Content-Length: %d\r\n" % len(body)
        question = POST + long + length + b"\r\n" + body
        last = POST + long + length + b"Connection: close\r\n\r\n" + body
        answers = await ask(port, question * 3 + last)
        assert answers.count(b"HTTP/1.1 200 ") == 4

    with_server(served, Limits(), talk)


def test_pictures_of_disconnected_clients_are_dropped(
    served: Run, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.serving.service.WATCH_AFTER_SECONDS", 0.05)
    seen = []

    def decode(content: bytes, name: str, **options: Any) -> np.ndarray:
        seen.append(name)
        time.sleep(0.1)
        return read_sized(content, name, **options)

    monkeypatch.setattr("peewit.prediction.engines.read_sized", decode)
    part = b'--b\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\n'
    body = (part + encode() + b"\r\n") * 40 + b"--b--\r\n"
    head = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n" % len(body)

    async def talk(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
        await writer.drain()
        await asyncio.sleep(0.3)
        writer.transport.abort()
        await asyncio.sleep(0.5)
        before = len(seen)
        assert 0 < before < 30
        await asyncio.sleep(0.3)
        assert len(seen) == before

    with_server(served, Limits(), talk)


def test_connections_beyond_the_limit_are_closed_at_once(
    served: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.serving.server.connection_limit", lambda: 3)

    async def talk(port: int) -> None:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert await ask(port, b"") == b""
        question = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for reader, writer in kept:
            writer.write(question)
            assert (await asyncio.wait_for(reader.read(100), 60)).startswith(b"HTTP/1.1 200 ")
            writer.close()
        await asyncio.sleep(0.1)

    with_server(served, Limits(), talk)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("soft", "hard", "asked", "most"),
    [
        (256, 10**6, (1216, 10**6), 1024),  # macOS
        (1024, 1024, (1024, 1024), 832),
        (1024, -1, (1216, -1), 1024),
        (-1, -1, None, 1024),
        (20_000, 20_000, None, 1024),
        (50, 50, (50, 50), 8),
    ],
)
def test_the_connection_limit_follows_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch,
    soft: int,
    hard: int,
    asked: tuple[int, int] | None,
    most: int,
) -> None:
    import resource

    monkeypatch.setattr(resource, "RLIM_INFINITY", -1)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: found.append(wanted))
    assert connection_limit() == most
    assert found == ([asked] if asked else [])


def test_two_host_headers_are_refused(served: Run) -> None:
    async def talk(port: int) -> None:
        first, second = b"Host: localhost\r\n", b"Host: evil.example\r\n"
        for hosts in (first + second, second + first, first + first):
            answer = await ask(port, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n", b"}")
            assert answer.startswith(b"HTTP/1.1 403 ")

    with_server(served, Limits(), talk)


def test_expect_100_continue_is_refused_before_the_body(served: Run) -> None:
    async def talk(port: int) -> None:
        head = POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        assert (await ask(port, head)).startswith(b"HTTP/1.1 413 ")

    with_server(served, Limits(), talk)


def test_a_running_request_is_finished_after_sigterm(
    served: Run, start: Start, encode: Callable[..., bytes]
) -> None:
    server = start(served.path)
    body = encode(20, (300, 300))
    length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(POST + length)
        # the server is reading the body now
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.process.terminate()
        end = time.monotonic() + 60
        while not refused(server.port):
            assert time.monotonic() < end, "the server still listens"
            time.sleep(0.02)
        connection.sendall(body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"labels"' in answer
    assert server.stop() == 0
    assert "all requests were answered" in server.stderr.splitlines()[-1]


def test_requests_that_were_cut_off_are_reported(
    served: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("peewit.serving.server.serve", lambda *rest: False)
    assert main(["serve", str(served.path), "--port", "0"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("unfinished requests were cut off")


STUCK = """
import sys, threading
import peewit.prediction.engines, peewit.serving.server
from peewit.__main__ import main

def read_sized(*arguments, **options):
    print("decoding", flush=True)
    threading.Event().wait()

peewit.prediction.engines.read_sized = read_sized
peewit.serving.server.SHUTDOWN_SECONDS = int(sys.argv[2])
peewit.serving.server.CLOSING_SECONDS = 1
sys.exit(main(["serve", sys.argv[1], "--port", "0"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("signals", [1, 2])
def test_the_server_ends_although_a_decoder_does_not(
    served: Run, encode: Callable[..., bytes], signals: int
) -> None:
    # a second signal ends it before the time for running requests is over
    seconds = {1: "1", 2: "600"}[signals]
    command = [sys.executable, "-c", STUCK, str(served.path), seconds]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
            body = encode(20, (30, 30))
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                assert process.stdout.readline() == "decoding\n"
                for _ in range(signals):
                    process.send_signal(signal.SIGINT)
                    while signals == 2 and not refused(port):
                        time.sleep(0.02)
                errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0
    assert errors.splitlines()[-1].endswith("unfinished requests were cut off")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionError:
        return True
    return False


def test_random_bodies_and_disconnects_leak_nothing(
    served: Run, start: Start, encode: Callable[..., bytes]
) -> None:
    server = start(served.path)
    png = encode()
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(png) + png
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:

        def bad_clients(seed: int) -> None:
            random = np.random.default_rng(seed)
            kinds = ("image/jpeg", "application/octet-stream", "multipart/form-data; boundary=b")
            starts = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"P6 9 9 255 ", b"--b\r\n")
            for turn in range(5_000):
                body = starts[turn % len(starts)] + random.bytes(int(random.integers(0, 300)))
                headers = {"content-type": kinds[turn % len(kinds)]}
                answer = client.post("/api/predict", content=body, headers=headers)
                # any bytes are valid pixels of a tiny PPM
                assert answer.status_code in (200, 413, 415, 422), (turn, answer.text)
                assert answer.json().keys() <= {"error", "predictions"}
                if turn % 33 == 0:
                    with socket.create_connection(("127.0.0.1", server.port)) as connection:
                        connection.sendall(whole[: int(random.integers(0, len(whole) + 1))])
            for _ in range(50):
                client.post("/api/predict", content=png, headers={"content-type": "image/png"})

        bad_clients(0)
        before = facts(client)
        assert sys.platform != "linux" or min(before.values()) > 0
        bad_clients(1)
        # connections are closed with some delay
        end = time.monotonic() + 60
        while facts(client)["process_open_fds"] > before["process_open_fds"]:
            assert time.monotonic() < end, "connections stay open"
            time.sleep(0.1)
        memory = "process_resident_memory_bytes"
        assert facts(client)[memory] - before[memory] < 50e6
    assert server.stop() == 0
    # no client can fill the log
    assert server.stderr.count("\n") == 2


def facts(client: httpx.Client) -> dict[str, float]:
    """Return the server's process metrics; 0 for those that this system does not have."""
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    told = {name: float(value) for name, _, value in lines if name.startswith("process_")}
    return {"process_open_fds": 0.0, "process_resident_memory_bytes": 0.0} | told


def test_a_port_in_use(served: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", str(served.path), "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"peewit: cannot listen on 127.0.0.1 port {port}: ")
    assert "--port" in error
    assert error.count("\n") == 1


def test_an_address_of_another_machine(served: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("192.0.2.1", "no.such.name.invalid"):
        assert main(["serve", str(served.path), "--host", host, "--port", "0"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"peewit: cannot listen on {host} port 0: ")
        assert error.count("\n") == 1


def test_a_missing_run_and_a_broken_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert "there is no run folder" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{")
    assert main(["serve", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_extra_is_named(
    served: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert main(["serve", str(served.path)]) == 1
    error = capsys.readouterr().err.rstrip()
    assert error.endswith("uvicorn; install them: pip install 'peewit[serve]'")
