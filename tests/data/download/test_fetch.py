from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest

from peewit.data.cifar import layouts
from peewit.data.download import fetch as download
from peewit.data.download.fetch import Patience, fetch_archive
from peewit.data.download.rate import Progress
from peewit.data.sources import SourceNotAvailable

CONTENT = b"\x1f\x8b" + os.urandom(400_000)
PAGE = b"<!DOCTYPE html><title>503 Service Unavailable</title>" * 20
# short, but long enough that background load is not mistaken for a bad mirror
QUICK = Patience(rate=100_000.0, window=0.6, stall=1.0, resumes=2)


class Server(ThreadingHTTPServer):
    """Serve CONTENT at any path, with the fault that the path names, and record the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, int | None]] = []
        self.gate = threading.Event()
        self.waiting = threading.Event()

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}/cifar-10-python.tar.gz"

    def starts(self, fault: str) -> list[int | None]:
        """Return the first byte that each request for this path asked for."""
        return [start for path, start in self.requests if path == fault]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int, length: int | None, kind: str = "application/x-gzip") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.close_connection = True

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        range_ = self.headers.get("Range")
        start = int(range_.removeprefix("bytes=").rstrip("-")) if range_ else None
        self.server.requests.append((fault, start))
        with contextlib.suppress(ConnectionError):
            getattr(self, fault)(start or 0)

    def file(self, start: int, content: bytes = CONTENT, end: int | None = None) -> None:
        """Serve correctly, with ranges; close the connection at ``end``."""
        if start >= len(content):
            self.head(416, 0)
            self.end_headers()
            return
        self.head(206 if start else 200, len(content) - start)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:end])

    def good(self, start: int) -> None:
        self.file(start)

    def gated(self, start: int) -> None:
        self.server.waiting.set()
        self.server.gate.wait(10)
        self.file(start)

    def cut(self, start: int) -> None:
        self.file(start, end=start + 150_000)

    def cut_at_once(self, start: int) -> None:
        self.file(start, end=start)

    def no_range(self, start: int) -> None:
        self.file(0)

    def no_range_cut(self, start: int) -> None:
        self.file(0, end=150_000)

    def wrong_range(self, start: int) -> None:
        self.head(206, 10)
        self.send_header("Content-Range", f"bytes {start + 5}-{start + 14}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT[:10])

    def odd_range(self, start: int) -> None:
        self.head(206, 10)
        self.send_header("Content-Range", "bytes somewhere")
        self.end_headers()

    def long(self, start: int) -> None:
        self.file(start, CONTENT + b"more")

    def short(self, start: int) -> None:
        self.file(start, CONTENT[:-10])

    def claims_more(self, start: int) -> None:
        self.head(200, len(CONTENT) + 1000)
        self.end_headers()
        self.wfile.write(CONTENT)

    def claims_less(self, start: int) -> None:
        self.head(200, 1000)
        self.end_headers()
        self.wfile.write(CONTENT)

    def claims_nothing(self, start: int) -> None:
        self.head(200, None)
        self.end_headers()
        self.wfile.write(CONTENT)

    def chunked(self, start: int) -> None:
        self.head(200, None)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(CONTENT), 50_000):
            piece = CONTENT[at : at + 50_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def chunked_badly(self, start: int) -> None:
        self.head(200, None)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ffff\r\n" + CONTENT[:100] + b"nonsense")

    def other(self, start: int) -> None:
        self.file(start, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    def page(self, start: int) -> None:
        self.head(200, len(PAGE), "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE)

    def disguised_page(self, start: int) -> None:
        self.head(200, len(CONTENT))
        self.end_headers()
        self.wfile.write(PAGE)

    def junk(self, start: int) -> None:
        self.file(0, b"PK" + CONTENT[2:])

    def missing(self, start: int) -> None:
        self.head(404, len(PAGE), "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def busy(self, start: int) -> None:
        self.head(503, 0)
        self.end_headers()

    def moved(self, start: int) -> None:
        self.head(302, 0)
        self.send_header("Location", self.server.url("good"))
        self.end_headers()

    def around(self, start: int) -> None:
        self.head(302, 0)
        self.send_header("Location", self.server.url("around"))
        self.end_headers()

    def to_a_file(self, start: int) -> None:
        self.head(302, 0)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def silent(self, start: int) -> None:
        time.sleep(2.5)

    def stalls(self, start: int) -> None:
        self.head(200, len(CONTENT))
        self.end_headers()
        self.wfile.write(CONTENT[:100_000])
        time.sleep(2.5)

    def garbage(self, start: int) -> None:
        self.wfile.write(b"\x00\x01 what is HTTP\r\n\r\n")
        self.close_connection = True

    def hangs_up(self, start: int) -> None:
        self.close_connection = True

    def trickles(self, start: int, rate: float = 40_000) -> None:
        self.head(206 if start else 200, len(CONTENT) - start)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        for at in range(start, len(CONTENT), 2000):
            self.wfile.write(CONTENT[at : at + 2000])
            time.sleep(2000 / rate)

    def cuts_slowly(self, start: int) -> None:
        self.file(start, end=start + 20_000)
        time.sleep(0.4)

    def trickles_faster(self, start: int) -> None:
        # fast enough for a test, but slower than QUICK allows in its first window
        if self.server.starts("trickles_faster")[1:]:
            self.file(start)
        else:
            self.trickles(start, 70_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish CONTENT as the archive."""
    known = replace(
        layouts.find_layout("cifar10"),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
    )
    monkeypatch.setattr(layouts, "LAYOUTS", (known,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "folder"


Get = Callable[..., download.Fetched]


@pytest.fixture
def get(server: Server, folder: Path) -> Get:
    def get(*faults: str, patience: Patience = QUICK, **rest: object) -> download.Fetched:
        urls = [server.url(fault) if "/" not in fault else fault for fault in faults]
        return fetch_archive("cifar10", folder, mirrors=urls, patience=patience, **rest)  # type: ignore[arg-type]

    return get


def whole(folder: Path) -> bool:
    """Return whether the folder contains the whole archive, and nothing else but the lock."""
    names = {path.name for path in folder.iterdir()} - {".cifar-10-python.tar.gz.lock"}
    return names == {"cifar-10-python.tar.gz"} and (
        (folder / "cifar-10-python.tar.gz").read_bytes() == CONTENT
    )


def test_a_good_mirror(get: Get, folder: Path) -> None:
    fetched = get("good")
    assert fetched == (folder / "cifar-10-python.tar.gz", True, ())
    assert whole(folder)


def test_an_existing_archive_is_not_downloaded(get: Get, server: Server) -> None:
    get("good")
    assert get("good").downloaded is False
    assert server.starts("good") == [None]


def test_the_progress_of_another_process_is_reported(
    get: Get, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.01)
    folder.mkdir(parents=True)
    other = filelock.FileLock(folder / ".cifar-10-python.tar.gz.lock")
    part, seen = folder / "cifar-10-python.tar.gz.part", []

    def progress(shown: Progress) -> None:
        seen.append(shown)
        if len(seen) < 4:
            part.write_bytes(CONTENT[: 1000 * len(seen)])
        elif len(seen) == 4:  # the other process has finished
            part.write_bytes(CONTENT)
            part.rename(folder / "cifar-10-python.tar.gz")
            other.release()

    other.acquire()
    assert get("good", progress=progress) == (folder / "cifar-10-python.tar.gz", False, ())
    assert [shown.received for shown in seen[:4]] == [0, 1000, 2000, 3000]
    assert seen[0].rate == seen[1].rate == 0
    assert seen[3].rate > 0
    assert str(seen[1]) == "another process: 0.0 of 0.4 MB, 0.0 MB/s"


FAULTS = {
    "page": "sent a web page",
    "disguised_page": "sent a web page",
    "junk": "not a gzip archive",
    "missing": "returned 404 Not Found",
    "busy": "returned 503 Service Unavailable",
    "around": "302",
    "to_a_file": "302",
    "silent": "sent nothing for 1 s",
    "stalls": "sent nothing for 1 s",
    "garbage": "what is HTTP",
    "hangs_up": "closed",
    "long": "its file has 400,006 bytes instead of 400,002",
    "short": "its file has 399,992 bytes instead of 400,002",
    "claims_more": "its file has 401,002 bytes instead of 400,002",
    "claims_less": "its file has 1,000 bytes instead of 400,002",
    "other": "not have the published checksum",
    "cut_at_once": "closed the connection after 0 of 400,002 bytes",
    "chunked_badly": "connection",
    "wrong_range": "a different range",
    "odd_range": "a different range",
    "trickles_faster": "slow",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mirror_after_a_bad_one_is_used(fault: str, get: Get, folder: Path) -> None:
    fetched = get(fault, "good")
    assert fetched.downloaded
    assert whole(folder)
    (note,) = fetched.notes
    assert FAULTS[fault] in note
    assert note.startswith("127.0.0.1:")


@pytest.mark.parametrize("fault", ["claims_nothing", "chunked", "moved", "cut", "no_range"])
def test_an_unusual_mirror_is_used(fault: str, get: Get, folder: Path) -> None:
    assert get(fault).notes == ()
    assert whole(folder)


@pytest.mark.parametrize("port", [9, 1])
def test_a_refused_connection_and_invalid_urls(port: int, get: Get, folder: Path) -> None:
    fetched = get(f"http://127.0.0.1:{port}/a", "file:///etc/passwd", "nonsense/", "good")
    assert "refused" in fetched.notes[0]
    assert "neither http nor https" in fetched.notes[1]
    assert len(fetched.notes) == 3
    assert whole(folder)


def test_a_lost_connection_is_resumed(get: Get, server: Server) -> None:
    get("cut")
    assert server.starts("cut") == [None, 150_000, 300_000]


@pytest.mark.parametrize("fault", ["disguised_page", "no_range_cut", "junk"])
def test_a_mirror_that_starts_over_does_not_lose_what_was_received(
    fault: str, get: Get, server: Server, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz.part").write_bytes(CONTENT[:200_000])
    with pytest.raises(SourceNotAvailable):
        get(fault)
    part = folder / "cifar-10-python.tar.gz.part"
    assert part.read_bytes() == CONTENT[:200_000]
    get(fault, "good")
    assert server.starts("good") == [200_000]
    assert whole(folder)


def test_the_rate_is_measured_across_connections(get: Get) -> None:
    (note,) = get("cuts_slowly", "good", patience=replace(QUICK, resumes=50)).notes
    assert "it is slow (" in note


def test_a_later_download_resumes(get: Get, server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    part = folder / "cifar-10-python.tar.gz.part"
    part.write_bytes(CONTENT[:123_456])
    get("good")
    assert server.starts("good") == [123_456]
    assert whole(folder)


def test_the_next_mirror_resumes(get: Get, server: Server) -> None:
    get("stalls", "good")
    assert server.starts("good") == [100_000]


def test_a_server_that_ignores_ranges_starts_over(get: Get, server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz.part").write_bytes(CONTENT[:100])
    get("no_range")
    assert server.starts("no_range") == [100]
    assert whole(folder)


@pytest.mark.parametrize("length", [1000, len(CONTENT), len(CONTENT) + 5])
def test_a_corrupt_part_is_downloaded_again(
    length: int, get: Get, server: Server, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz.part").write_bytes(bytes(length))
    assert get("good").notes == ()
    assert server.starts("good") == [length, None]
    assert whole(folder)


def test_a_complete_part_is_used(get: Get, server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz.part").write_bytes(CONTENT)
    get("good")
    assert server.starts("good") == [len(CONTENT)]
    assert whole(folder)


def test_mirror_that_keeps_losing_the_connection_is_abandoned(get: Get, server: Server) -> None:
    with pytest.raises(SourceNotAvailable, match="closed the connection"):
        get("no_range_cut")
    assert len(server.starts("no_range_cut")) == QUICK.resumes + 1


def test_a_slow_mirror_is_abandoned_and_its_bytes_are_kept(get: Get, server: Server) -> None:
    (note,) = get("trickles", "good").notes
    assert "it is slow (" in note
    assert "kB/s)" in note
    (start,) = server.starts("good")
    assert start is not None
    assert 0 < start < len(CONTENT)


def test_if_all_mirrors_are_slow_the_fastest_is_used(
    get: Get, server: Server, folder: Path
) -> None:
    fetched = get("missing", "trickles", "trickles_faster")
    assert whole(folder)
    assert len(fetched.notes) == 3
    assert len(server.starts("trickles")) == 1
    assert len(server.starts("trickles_faster")) == 2
    assert server.starts("trickles_faster")[1]


def test_progress_is_reported(get: Get, server: Server) -> None:
    seen: list[Progress] = []
    get("cut", progress=seen.append)
    assert [step.received for step in seen] == sorted(step.received for step in seen)
    last = seen[-1]
    assert (last.url, last.received, last.total) == (
        server.url("cut"),
        len(CONTENT),
        len(CONTENT),
    )
    assert last.seconds_left == 0
    assert all(step.rate >= 0 for step in seen)


def test_if_all_mirrors_fail_the_error_says_what_to_do(get: Get, folder: Path) -> None:
    with pytest.raises(SourceNotAvailable) as caught:
        get("missing", "page", "http://127.0.0.1:9/x")
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "cannot download CIFAR-10",
        "returned 404 Not Found",
        "sent a web page",
        "127.0.0.1:9: connection refused",
        "cifar-10-python.tar.gz",
        "400,002 bytes",
        hashlib.sha256(CONTENT).hexdigest(),
        str(folder),
        "--data",
    ):
        assert part in text
    assert not (folder / "cifar-10-python.tar.gz").exists()


def test_two_at_once_download_once(get: Get, server: Server, folder: Path) -> None:
    results: list[download.Fetched] = []
    threads = [threading.Thread(target=lambda: results.append(get("gated"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    server.waiting.wait(10)
    server.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(result.downloaded for result in results) == [False, True]
    assert server.starts("gated") == [None]
    assert whole(folder)


def test_another_archive_of_that_name_is_kept(get: Get, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz").write_bytes(b"mine")
    get("good")
    assert (folder / "cifar-10-python.tar.gz").read_bytes() == CONTENT
    assert (folder / "cifar-10-python.tar.gz.replaced").read_bytes() == b"mine"


def test_a_full_disk_is_detected_before_the_download(
    get: Get, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 300_000))
    with pytest.raises(SourceNotAvailable, match=r"needs 0 MB, but only 0 MB are free") as no:
        get("good")
    assert hashlib.sha256(CONTENT).hexdigest() in str(no.value)
    assert server.requests == []


def test_a_disk_that_fills_up_is_an_error_and_is_freed(
    get: Get, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, chunk: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            self.file.close()  # type: ignore[attr-defined]

    original = download._Download.write
    monkeypatch.setattr(
        download._Download,
        "write",
        lambda self, file, chunk: original(self, Full(file), chunk),  # type: ignore[arg-type]
    )
    with pytest.raises(SourceNotAvailable, match="no space left on device"):
        get("good", "good")
    assert [path.name for path in folder.iterdir()] == [".cifar-10-python.tar.gz.lock"]


def test_a_folder_that_cannot_be_created_is_an_error(get: Get, folder: Path) -> None:
    folder.parent.write_text("a file in its place")
    with pytest.raises(SourceNotAvailable, match=r"cannot write .*cifar-10-python\.tar\.gz") as no:
        get("good")
    assert "get cifar-10-python.tar.gz (400,002 bytes, sha256 " in str(no.value)


def test_ctrl_c_keeps_what_was_received(get: Get, server: Server, folder: Path) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get("cut", progress=interrupt)
    assert (folder / "cifar-10-python.tar.gz.part").stat().st_size == 150_000
    get("good")
    assert server.starts("good") == [150_000]
    assert whole(folder)


@pytest.mark.parametrize(
    "name", ["cifar-10-python.tar.gz.part", "cifar-10-python.tar.gz.anew.part"]
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link"])
def test_something_else_in_place_of_the_part_is_named(
    name: str, kind: str, get: Get, folder: Path
) -> None:
    folder.mkdir(parents=True)
    path = folder / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder / "gone")
    with pytest.raises(SourceNotAvailable) as no:
        get("good")
    assert str(no.value).startswith(f"cannot write {path}: it is not a regular file; remove it, or")


def test_a_folder_in_place_of_the_lock_is_named(get: Get, folder: Path) -> None:
    lock = folder / ".cifar-10-python.tar.gz.lock"
    lock.mkdir(parents=True)
    with pytest.raises(SourceNotAvailable) as no:
        get("good")
    assert str(no.value).startswith(f"cannot write {lock}: is a directory")


def test_a_lock_left_behind_does_not_block(get: Get, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / ".cifar-10-python.tar.gz.lock").write_text("12345")
    get("good")
    assert whole(folder)
