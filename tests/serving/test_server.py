"""The real server: bad clients, its end, and what stops it from starting."""

from __future__ import annotations

import asyncio
import socket
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
from peewit.images.reader import read_picture
from peewit.runs.run import Run
from peewit.serving.app import create_app
from peewit.serving.limits import Limits
from peewit.serving.server import LARGEST_HEAD, bind, most_connections, server_of

Start = Callable[..., Any]
POST = b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
SMALL = 4096  # bytes
HURRIED = Limits(seconds=1, request_seconds=2)


def with_server(
    run: Run, limits: Limits, talk: Callable[[int], Awaitable[None]], buffer: int = 0
) -> None:
    """Run ``talk(port)`` beside a server, in one loop; the server must answer afterwards.

    ``buffer`` is how many bytes of an answer the system keeps for a client, if not as it likes.
    """

    async def both() -> None:
        server = server_of(create_app(run, limits), limits)
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
    """Send bytes, and return what comes back: until ``until``, or until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    parts = bytearray()
    try:
        writer.write(message)
        while part := await asyncio.wait_for(reader.read(65536), 60):
            parts += part
            if until and until in parts:
                break
    except ConnectionError:
        pass  # cut off: what has come before counts
    writer.close()
    return bytes(parts)


def test_clients_that_say_too_little_are_dropped(served: Run) -> None:
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
        # answered, and dropped when no other request came
        assert kept.startswith(b"HTTP/1.1 200 ")
        for answer in (stalled, unfinished):
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer
            assert answer.endswith(b'{"error": "the request came too slowly; send it again"}')

    with_server(served, HURRIED, talk)


def test_a_body_that_trickles_in_has_an_end(served: Run) -> None:
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

    with_server(served, HURRIED, talk)


def test_who_does_not_fetch_the_answers_is_dropped(served: Run) -> None:
    async def talk(port: int) -> None:
        question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        with pytest.raises(ConnectionError):
            await send(writer, question, 10**6)

    with_server(served, HURRIED, talk)


def test_who_does_not_fetch_the_last_answer_is_dropped(served: Run) -> None:
    async def talk(port: int) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            client.connect(("127.0.0.1", port))
            # more than the system keeps for the client, and less than makes the server wait
            question = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
            client.sendall((question + b"\r\n") * 5 + question + b"Connection: close\r\n\r\n")
            await asyncio.sleep(3 * HURRIED.seconds)
            client.settimeout(60)
            answer = b""
            with suppress(ConnectionError):
                while part := client.recv(65536):
                    answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 200 ") < 6

    with_server(served, HURRIED, talk, buffer=SMALL)


async def send(writer: asyncio.StreamWriter, piece: bytes, times: int) -> None:
    """Send a piece over and over, as long as the server takes it."""
    for _ in range(times):
        writer.write(piece)
        await asyncio.wait_for(writer.drain(), 60)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /",
        # what follows the body may be no longer than what precedes it
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["header", "address", "trailer", "chunk"],
)
def test_what_never_ends_is_cut_off(served: Run, beginning: bytes) -> None:
    async def talk(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(beginning)
        # more than what is allowed, because the system's own buffers take some megabytes
        with pytest.raises(ConnectionError):
            await send(writer, b"a" * 10_000, 500 * LARGEST_HEAD // 10_000)
        writer.close()

    with_server(served, Limits(), talk)


def test_heads_are_counted_one_by_one(served: Run, encode: Callable[..., bytes]) -> None:
    async def talk(port: int) -> None:
        long = b"X: " + b"a" * (LARGEST_HEAD * 2 // 3) + b"\r\n"
        body = encode()
        length = b"Content-Length: %d\r\n" % len(body)
        question = POST + long + length + b"\r\n" + body
        last = POST + long + length + b"Connection: close\r\n\r\n" + body
        answers = await ask(port, question * 3 + last)
        assert answers.count(b"HTTP/1.1 200 ") == 4

    with_server(served, Limits(), talk)


def test_pictures_of_who_hangs_up_are_dropped(
    served: Run, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.serving.service.SECONDS_UNWATCHED", 0.05)
    seen = []

    def decode(content: bytes, name: str, *, limit: int) -> np.ndarray:
        seen.append(name)
        time.sleep(0.1)
        return read_picture(content, name, limit=limit)

    monkeypatch.setattr("peewit.serving.engine.read_picture", decode)
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


def test_more_connections_than_may_be_open_are_closed_at_once(
    served: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.serving.server.most_connections", lambda: 3)

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
def test_as_many_connections_may_be_open_as_files(
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
    assert most_connections() == most
    assert found == ([asked] if asked else [])


def test_a_client_that_asks_first_is_told_before_it_sends(served: Run) -> None:
    async def talk(port: int) -> None:
        head = POST + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        assert (await ask(port, head)).startswith(b"HTTP/1.1 413 ")

    with_server(served, Limits(), talk)


def test_a_request_that_has_begun_is_finished_after_the_signal(
    served: Run, start: Start, encode: Callable[..., bytes]
) -> None:
    server = start(served.path)
    body = encode(20, (300, 300))
    length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(POST + length)
        # it is being read now
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        server.process.terminate()
        end = time.monotonic() + 60
        while not refused(server.port):
            assert time.monotonic() < end, "it still listens"
            time.sleep(0.02)
        connection.sendall(body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"labels"' in answer
    assert server.stop() == 0
    assert server.said.endswith("all requests were answered\n")


def test_what_was_cut_off_is_said(
    served: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("peewit.serving.server.serve", lambda *rest: False)
    assert main(["serve", str(served.path), "--port", "0"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("unfinished requests were cut off")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionError:
        return True
    return False


def test_random_bodies_and_clients_that_hang_up_leave_nothing_behind(
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
                # a PPM of few pixels is a picture, whatever they are
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
        # connections close when the loop has come round to them
        end = time.monotonic() + 60
        while facts(client)["process_open_fds"] > before["process_open_fds"]:
            assert time.monotonic() < end, "connections are left open"
            time.sleep(0.1)
        memory = "process_resident_memory_bytes"
        assert facts(client)[memory] - before[memory] < 50e6
    assert server.stop() == 0
    # nothing that a stranger does fills the log
    assert server.said.count("\n") == 2


def facts(client: httpx.Client) -> dict[str, float]:
    """Return what the server counts of itself; 0 for what is not told on this system."""
    lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
    told = {name: float(value) for name, _, value in lines if name.startswith("process_")}
    return {"process_open_fds": 0.0, "process_resident_memory_bytes": 0.0} | told


def test_a_port_that_is_taken_is_one_sentence(
    served: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", str(served.path), "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"peewit: cannot listen on 127.0.0.1 port {port}: ")
    assert error.rstrip().endswith("choose another by --port, or 0")
    assert error.count("\n") == 1


def test_an_address_of_another_machine_is_one_sentence(
    served: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in ("192.0.2.1", "no.such.name.invalid"):
        assert main(["serve", str(served.path), "--host", host, "--port", "0"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"peewit: cannot listen on {host} port 0: ")
        assert error.count("\n") == 1


def test_no_run_and_a_broken_run_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert "there is no run folder" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{")
    assert main(["serve", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_missing_extra_is_named(
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
