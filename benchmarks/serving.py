"""Measure the throughput of `peewit serve` relative to its engine, its latency and its memory.

    python benchmarks/serving.py RUN [--seconds 3] [--rounds 3] [--requests 10000]

Starts ``peewit serve RUN`` on a free loopback port and sends requests from one other process, with
1, 8 and 64 clients. Each client sends its next request when the previous one is answered, with 1
image per request and with 64. Clients and server share the machine's cores, as they would on one
laptop, so the clients' CPU time counts against the server.

Before the server's measurements of each round, while the server is idle, another process measures
the throughput of the same engine on its own:

- "pixels": the same images decoded in memory: only the network;
- "files": the same PNG files in memory, decoded one after the other with the server's decoder and
  run through the network in batches of 64: what a loop without HTTP would reach.

The log has both rates and the server's share of each. Then 8 clients send --requests requests with
one image each, and the server's memory is read at intervals. The whole benchmark takes three
minutes.

Each measurement is one line in results/serving-DATE.jsonl; a table is printed at the end.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inference import synthetic
from PIL import Image
from rawlog import append, machine, today

CLIENTS = (1, 8, 64)
PICTURES = (1, 64)
BOUNDARY = b"a-line-that-occurs-in-no-image"
# with 64 clients and 64 images per request, it takes a second until the first is answered twice
WARM_UP = 2.0


def png(picture):
    """Encode an image as PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def request(files, port):
    """Return an HTTP request with one image as its body, or with several as a form."""
    if len(files) == 1:
        kind, body = b"image/png", files[0]
    else:
        kind = b"multipart/form-data; boundary=" + BOUNDARY
        parts = [
            b"--%s\r\nContent-Disposition: form-data; name=pictures; filename=%d.png\r\n"
            b"Content-Type: image/png\r\n\r\n%s\r\n" % (BOUNDARY, number, file)
            for number, file in enumerate(files)
        ]
        body = b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"
    head = (
        b"POST /api/predict?top=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n" % (port, kind, len(body))
    )
    return head + body


async def ask(reader, writer, message):
    """Send one request; return the status and the body of the response."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    return int(head[9:12]), await reader.readexactly(length)


async def load(port, messages, clients, seconds, requests=None):
    """Send requests for ``seconds``, or ``requests`` of them; return latencies and failures."""
    latencies, failures = [], []
    begin = time.perf_counter() + (0 if requests else WARM_UP)
    left = [requests if requests else 10**9]

    async def client(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        turn = number
        while left[0] > 0 and time.perf_counter() < begin + seconds:
            left[0] -= 1
            started = time.perf_counter()
            status, body = await ask(reader, writer, messages[turn % len(messages)])
            ended = time.perf_counter()
            turn += clients
            if status != 200 or b'"error"' in body:
                failures.append(status)
            if begin <= ended < begin + seconds:
                latencies.append(ended - started)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies, failures


async def server_memory(port):
    """Return the server's resident memory in MB, from its /metrics endpoint."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    message = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port
    _, body = await ask(reader, writer, message)
    writer.close()
    found = re.search(rb"^process_resident_memory_bytes (\S+)", body, re.MULTILINE)
    return float(found[1]) / 1e6 if found else None


def measure_engine(connection, run, folder):
    """Measure the engine's own throughput in images/s, whenever a number of seconds is received.

    Runs in its own process and ends when it receives None.
    """
    from peewit.evaluation.inference import BATCH
    from peewit.prediction.engines import fastest
    from peewit.runs.run import Run

    engine = fastest(Run.open(run), BATCH)
    files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    pixels = np.stack([engine.read(file, "picture") for file in files])

    def network():
        engine.probabilities(pixels)

    def decoding_too():
        for first in range(0, len(files), BATCH):
            part = [engine.read(file, "picture") for file in files[first : first + BATCH]]
            engine.probabilities(np.stack(part))

    while (seconds := connection.recv()) is not None:
        found = {"engine": engine.name, "streams": engine.streams}
        for name, work in (("pixels", network), ("files", decoding_too)):
            work()
            rates, end = [], time.perf_counter() + seconds
            while not rates or time.perf_counter() < end:
                started = time.perf_counter()
                work()
                rates.append(len(files) / (time.perf_counter() - started))
            found[name] = rates
        connection.send(found)


class Engine:
    """A process that measures the engine without a server, on request."""

    def __init__(self, run, folder):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=measure_engine, args=(theirs, run, folder))
        self.process.start()
        theirs.close()  # so that waiting for a process that failed raises EOFError

    def measure(self, seconds):
        """Return the engine's name and its images/s from pixels and from files."""
        self.connection.send(seconds)
        return self.connection.recv()

    def close(self):
        """End the process."""
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join(60)


class Server:
    """``peewit serve`` on a free port."""

    def __init__(self, run):
        command = [sys.executable, "-m", "peewit", "serve", str(run), "--port", "0"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.port = int(self.process.stdout.readline().strip().rstrip("/").rpartition(":")[2])

    def close(self):
        """Stop the server and return its exit code."""
        self.process.terminate()
        return self.process.wait(60)


def loads(port, files, seconds):
    """Yield a row for each number of images per request and clients."""
    for count in PICTURES:
        messages = [request(files[at : at + count], port) for at in range(0, len(files), count)]
        for clients in CLIENTS:
            latencies, failures = asyncio.run(load(port, messages, clients, seconds))
            low, high = np.percentile(latencies, [50, 99])
            yield {
                "clients": clients,
                "pictures": count,
                "requests": len(latencies),
                "requests_per_second": len(latencies) / seconds,
                "pictures_per_second": len(latencies) * count / seconds,
                "p50_ms": low * 1000,
                "p99_ms": high * 1000,
                "failures": failures,
                # the 0th to the 100th percentile
                "percentiles_ms": np.percentile(latencies, range(101)).round(6).tolist(),
            }


def memory(port, files, requests):
    """Return the server's memory in MB before, during and after the requests, and failures."""
    messages = [request([file], port) for file in files]
    found, failures = [asyncio.run(server_memory(port))], []
    for _ in range(10):
        failures += asyncio.run(load(port, messages, 8, 600, requests // 10))[1]
        found.append(asyncio.run(server_memory(port)))
    return found, failures


def table(rows):
    """Return the lines of the table, with medians over the rounds."""
    own = {
        name: np.median([rate for row in rows if row["kind"] == "own" for rate in row[name]])
        for name in ("pixels", "files")
    }
    engine = next(row["engine"] for row in rows if row["kind"] == "own")
    found = [row for row in rows if row["kind"] == "load"]
    lines = [
        f"throughput of the engine ({engine}): {own['pixels']:,.0f} images/s from pixels, "
        f"{own['files']:,.0f} from files",
        "clients    images  requests/s    images/s  of pixels  of files  p50 ms  p99 ms  failures",
    ]
    for count in PICTURES:
        for clients in CLIENTS:
            mine = [row for row in found if (row["pictures"], row["clients"]) == (count, clients)]

            def middle(name, mine=mine):
                return float(np.median([row[name] for row in mine]))

            rate, failures = (
                middle("pictures_per_second"),
                sum(len(row["failures"]) for row in mine),
            )
            lines.append(
                f"{clients:7}  {count:8}  {middle('requests_per_second'):10,.0f}  {rate:10,.0f}  "
                f"{rate / own['pixels']:9.0%}  {rate / own['files']:8.0%}  "
                f"{middle('p50_ms'):6.1f}  {middle('p99_ms'):6.1f}  {failures:8}"
            )
    last = rows[-1]
    megabytes = " ".join("?" if value is None else f"{value:.0f}" for value in last["mb"])
    lines.append(
        f"memory in MB before, during and after {last['requests']:,} requests: {megabytes}; "
        f"{len(last['failures'])} failures"
    )
    return lines


def main():
    """Measure, write the log and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="per load and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument(
        "--dry-run", action="store_true", help="run a little of everything and write no log"
    )
    options = parser.parse_args()
    if options.dry_run:
        options.seconds, options.rounds, options.requests = 0.2, 1, 100
    log, rows = today("serving"), []

    def keep(row):
        rows.append(row)
        if not options.dry_run:
            append(log, row)

    facts = json.loads((options.run / "run.json").read_text(encoding="utf-8"))["preprocessing"]
    random = np.random.default_rng(0)
    made = synthetic(random, 256, facts["height"], facts["width"], facts["channels"])
    files = [png(picture) for picture in made]
    keep({"kind": "machine", "run": options.run.name, **machine()})
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            (Path(folder) / f"{number:03}.png").write_bytes(file)
        engine = Engine(options.run, folder)
        engine.measure(0.0)  # picks the engine now, not while the server does the same
        server = Server(options.run)
        try:
            for number in range(options.rounds):
                keep({"kind": "own", "round": number, **engine.measure(options.seconds)})
                for row in loads(server.port, files, options.seconds):
                    keep({"kind": "load", "round": number, **row})
            found, failures = memory(server.port, files, options.requests)
        finally:
            code = server.close()
            engine.close()
    keep(
        {
            "kind": "memory",
            "requests": options.requests,
            "mb": found,
            "failures": failures,
            "exit_code": code,
        }
    )
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
