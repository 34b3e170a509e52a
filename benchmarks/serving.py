"""How much of a run's own speed its server keeps, and whether its memory stays where it is.

    python benchmarks/serving.py RUN [--seconds 5] [--requests 10000]

Starts ``peewit serve RUN`` on a free port of loopback and asks it from one other process, first
with 1, then 8, then 64 clients, each of which sends its next request when it has the answer to the
last: one picture a request, and 64 pictures a request. Before and after, the run's own throughput
is measured in a process of its own: batches of pixels, no files, no server. Then so many requests
of one picture are sent while the server's memory is read. All loops end by themselves. Client and
server share the machine's cores, as a page and its server on one laptop do.

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
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rawlog import append, machine, today

CLIENTS = (1, 8, 64)
PICTURES = (1, 64)
BOUNDARY = b"a-line-that-is-in-no-picture"
WARM_UP = 1.0


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
import sys, time
import numpy as np
from peewit.engines import fastest
from peewit.inference import BATCH
from peewit.run import Run
run = Run.open(sys.argv[1])
rule = run.preprocessing
engine = fastest(run, BATCH)
shape = (16 * BATCH, rule.height, rule.width, rule.channels)
images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
engine.probabilities(images)
end = time.perf_counter() + float(sys.argv[2])
rates = []
while time.perf_counter() < end:
    started = time.perf_counter()
    engine.probabilities(images)
    rates.append(len(images) / (time.perf_counter() - started))
print(engine.name, *rates, sep="\\n")
"""


def own_rate(run, seconds):
    """Return the engine and the median of its images a second, in batches of its own."""
    command = [sys.executable, "-c", OWN, str(run), str(seconds)]
    name, *rates = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return name, float(np.median([float(rate) for rate in rates]))


def main():
    """Measure, write the log, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    log = today("serving")
    append(log, {"kind": "machine", **machine()})

    command = [sys.executable, "-m", "peewit", "serve", str(options.run), "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    name, before = own_rate(options.run, options.seconds)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    rows = []
    try:
        port = int(server.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        facts = json.loads((options.run / "run.json").read_text(encoding="utf-8"))["preprocessing"]
        made = pictures(256, facts["height"], facts["width"], facts["channels"])
        files = [png(picture) for picture in made]
        for count in PICTURES:
            groups = [files[at : at + count] for at in range(0, len(files), count)]
            messages = [request(group, port) for group in groups]
            for clients in CLIENTS:
                latencies, failures = asyncio.run(load(port, messages, clients, options.seconds))
                low, high = np.percentile(latencies, [50, 99])
                row = {
                    "kind": "load",
                    "clients": clients,
                    "pictures": count,
                    "requests_per_second": len(latencies) / options.seconds,
                    "pictures_per_second": len(latencies) * count / options.seconds,
                    "p50_ms": low * 1000,
                    "p99_ms": high * 1000,
                    "failures": len(failures),
                }
                append(log, row)
                rows.append(row)
        messages = [request([file], port) for file in files]
        memory = [asyncio.run(server_memory(port))]
        for _ in range(10):
            asyncio.run(load(port, messages, 8, 600, options.requests // 10))
            memory.append(asyncio.run(server_memory(port)))
        append(log, {"kind": "memory", "requests": options.requests, "mb": memory})
    finally:
        server.terminate()
        code = server.wait(60)
    after = own_rate(options.run, options.seconds)[1]
    own = max(before, after)
    append(log, {"kind": "own", "engine": name, "before": before, "after": after, "exit": code})

    print(f"own throughput ({name}): {before:,.0f} and {after:,.0f} pictures/s")
    print("clients  pictures  requests/s  pictures/s  of own  p50 ms  p99 ms  failures")
    for row in rows:
        print(
            f"{row['clients']:7}  {row['pictures']:8}  {row['requests_per_second']:10,.0f}  "
            f"{row['pictures_per_second']:10,.0f}  {row['pictures_per_second'] / own:6.0%}  "
            f"{row['p50_ms']:6.1f}  {row['p99_ms']:6.1f}  {row['failures']:8}"
        )
    print("memory, MB:", *(f"{value:.0f}" for value in memory))


if __name__ == "__main__":
    main()
