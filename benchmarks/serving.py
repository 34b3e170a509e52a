"""How much of a run's own speed its server keeps, and whether its memory stays where it is.

    python benchmarks/serving.py RUN [--seconds 3] [--rounds 3] [--requests 10000]

Starts ``peewit serve RUN`` on a free port of loopback and asks it from one other process, with 1, 8
and 64 clients, each of which sends its next request when it has the answer to the last: one picture
a request, and 64 pictures a request. Client and server share the machine's cores, as a page and its
server on one laptop do; what the client takes of them counts against the server.

The run's own batch throughput is measured in a process of its own, in each round before the
server's, while the server sleeps. It is the same engine that the server has picked, in two ways:

- "pixels": the same pictures, already decoded, in memory: nothing but the network;
- "files": the same PNG files in memory, decoded one after the other by what the server decodes
  with, then put through the network 64 at a time: what a loop without a server gets.

Of the server's time at least the decoding is not in the first, so the second is what a client could
have had without HTTP. Both are written, and the server's share of both. Then so many requests of
one picture are sent by 8 clients while the server's memory is read. All loops end by themselves: in
all it takes three minutes.

Writes one JSON object a measurement to results/serving-DATE.jsonl, and prints a table.
"""

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rawlog import append, machine, today

CLIENTS = (1, 8, 64)
PICTURES = (1, 64)
BOUNDARY = b"a-line-that-is-in-no-picture"
# 64 clients with 64 pictures each take a second until the first of them has its second answer
WARM_UP = 2.0


def pictures(count, height, width, channels):
    """Return made-up pictures that compress about as well as photographs: uint8 (N, H, W, C)."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 6, 6, channels), dtype=np.uint8)
    made = []
    for picture in coarse:
        smooth = [
            np.asarray(Image.fromarray(picture[:, :, c]).resize((width, height), 3), float)
            for c in range(channels)
        ]
        noisy = np.stack(smooth, 2) + random.normal(0, 6, (height, width, channels))
        made.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(made)


def png(picture):
    """Return a picture as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def request(files, port):
    """Return the bytes of a whole request: a form, or the one picture itself."""
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
    """Send one request; return the status and the body of the answer."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    return int(head[9:12]), await reader.readexactly(length)


async def load(port, messages, clients, seconds, requests=None):
    """Ask until the time is over, or ``requests`` were sent; return latencies and failures."""
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
    """Return the server's resident memory in MB, as its own /metrics says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    message = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port
    _, body = await ask(reader, writer, message)
    writer.close()
    found = re.search(rb"^process_resident_memory_bytes (\S+)", body, re.MULTILINE)
    return float(found[1]) / 1e6 if found else None


OWN = """
import json, pathlib, sys, time
import numpy as np
from peewit.engines import fastest
from peewit.inference import BATCH
from peewit.pictures import read_picture
from peewit.run import Run
run = Run.open(sys.argv[1])
engine = fastest(run, BATCH)
files = [file.read_bytes() for file in sorted(pathlib.Path(sys.argv[2]).iterdir())]
pixels = np.stack([engine.prepare(read_picture(file)) for file in files])

def network():
    engine.probabilities(pixels)

def decoding_too():
    for first in range(0, len(files), BATCH):
        part = [engine.prepare(read_picture(file)) for file in files[first : first + BATCH]]
        engine.probabilities(np.stack(part))

for line in sys.stdin:
    found = {"engine": engine.name, "streams": engine.streams}
    for name, work in (("pixels", network), ("files", decoding_too)):
        work()
        rates, end = [], time.perf_counter() + float(line)
        while not rates or time.perf_counter() < end:
            started = time.perf_counter()
            work()
            rates.append(len(files) / (time.perf_counter() - started))
        found[name] = rates
    print(json.dumps(found), flush=True)
"""


class Own:
    """A process that measures the run's own throughput when it is asked to."""

    def __init__(self, run, folder):
        command = [sys.executable, "-c", OWN, str(run), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, seconds):
        """Return engine and pictures a second: of pixels, and of files."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait(60)


class Server:
    """``peewit serve`` on a free port."""

    def __init__(self, run):
        command = [sys.executable, "-m", "peewit", "serve", str(run), "--port", "0"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.port = int(self.process.stdout.readline().strip().rstrip("/").rpartition(":")[2])

    def close(self):
        """End it; return its exit code."""
        self.process.terminate()
        return self.process.wait(60)


def loads(port, files, seconds):
    """Give what was measured with each number of pictures and clients."""
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
                # from the shortest to the longest, in hundredths
                "percentiles_ms": np.percentile(latencies, range(101)).round(6).tolist(),
            }


def memory(port, files, requests):
    """Return the server's memory in MB before, between and after, and the failures."""
    messages = [request([file], port) for file in files]
    found, failures = [asyncio.run(server_memory(port))], []
    for _ in range(10):
        failures += asyncio.run(load(port, messages, 8, 600, requests // 10))[1]
        found.append(asyncio.run(server_memory(port)))
    return found, failures


def table(rows):
    """Return the lines of the table: medians of the rounds."""
    own = {
        name: np.median([rate for row in rows if row["kind"] == "own" for rate in row[name]])
        for name in ("pixels", "files")
    }
    engine = next(row["engine"] for row in rows if row["kind"] == "own")
    found = [row for row in rows if row["kind"] == "load"]
    lines = [
        f"own batch throughput ({engine}): {own['pixels']:,.0f} pictures/s of pixels, "
        f"{own['files']:,.0f} of files",
        "clients  pictures  requests/s  pictures/s  of pixels  of files  p50 ms  p99 ms  failures",
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
        f"memory in MB, before, between and after {last['requests']:,} requests: {megabytes}; "
        f"{len(last['failures'])} failures"
    )
    return lines


def main():
    """Measure, write the log, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--dry-run", action="store_true", help="little of everything, nothing kept")
    options = parser.parse_args()
    if options.dry_run:
        options.seconds, options.rounds, options.requests = 0.2, 1, 100
    log, rows = today("serving"), []

    def keep(row):
        rows.append(row)
        if not options.dry_run:
            append(log, row)

    facts = json.loads((options.run / "run.json").read_text(encoding="utf-8"))["preprocessing"]
    made = pictures(256, facts["height"], facts["width"], facts["channels"])
    files = [png(picture) for picture in made]
    keep({"kind": "machine", "run": options.run.name, **machine()})
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            (Path(folder) / f"{number:03}.png").write_bytes(file)
        own = Own(options.run, folder)
        own.ask(0.0)  # the engine is picked now, and not by both at the same time
        server = Server(options.run)
        try:
            for number in range(options.rounds):
                keep({"kind": "own", "round": number, **own.ask(options.seconds)})
                for row in loads(server.port, files, options.seconds):
                    keep({"kind": "load", "round": number, **row})
            found, failures = memory(server.port, files, options.requests)
        finally:
            code = server.close()
            own.close()
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
