"""The API: responses, refused requests, and who may send them."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from made_runs import make_run
from peewit.images.reader import read_picture
from peewit.images.scaled import read_sized
from peewit.runs.run import Run
from peewit.serving.app import create_app
from peewit.serving.limits import Limits

Encode = Callable[..., bytes]
PNG = {"content-type": "image/png"}


def bomb(width: int, height: int) -> bytes:
    """Return a tiny PNG whose header declares many pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(32, 32), (50, 70)])
@pytest.mark.parametrize("heat_map", ["false", "true"])
def test_the_response_agrees_with_the_run(
    client: TestClient, served: Run, encode: Encode, size: tuple[int, int], heat_map: str
) -> None:
    content = encode(130, size)
    answer = client.post(f"/api/predict?heat_map={heat_map}", content=content, headers=PNG)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["predictions"]
    (expected,) = served.probabilities(read_picture(content)[None])
    assert (row["height"], row["width"]) == size
    found = {label["class"]: label["probability"] for label in row["labels"]}
    for name, share in zip(served.class_names, expected, strict=True):
        assert found[name] == pytest.approx(float(share), abs=1e-5)
    shares = [label["probability"] for label in row["labels"]]
    assert shares == sorted(shares, reverse=True)
    if heat_map == "true":
        heat = np.array(row["heat_map"])
        assert heat.shape == (32, 32)
        assert heat.min() >= 0
        assert heat.max() <= 1
        height, width = size
        part = {"top": 0, "left": 0, "height": height, "width": width}
        assert row["heat_map_part"] == part
    else:
        assert "heat_map" not in row


def test_a_cropped_picture_is_answered_with_the_part_that_the_network_sees(
    encode: Encode, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", fit="crop")
    content = encode(130, (50, 70))
    with TestClient(create_app(run), "http://127.0.0.1") as client:
        answer = client.post("/api/predict?heat_map=true", content=content, headers=PNG)
        assert client.get("/api/model").json()["input"]["fit"] == "crop"
    (row,) = answer.json()["predictions"]
    assert row["heat_map_part"] == {"top": 0, "left": 10, "height": 50, "width": 50}


def test_predictions_and_errors_are_in_the_order_of_the_pictures(
    client: TestClient, encode: Encode
) -> None:
    files = [
        ("pictures", ("bright.png", encode(230), "image/png")),
        ("pictures", ("notes.txt", b"hello", "text/plain")),
        ("pictures", ("dark.jpg", encode(20, (40, 30), "JPEG"), "image/jpeg")),
        ("pictures", ("nothing.png", b"", "image/png")),
    ]
    answer = client.post("/api/predict?top=1", files=files)
    assert answer.status_code == 200
    rows = answer.json()["predictions"]
    assert [row["name"] for row in rows] == ["bright.png", "notes.txt", "dark.jpg", "nothing.png"]
    assert [row.get("status") for row in rows] == [None, 415, None, 422]
    assert [len(row.get("labels", [])) for row in rows] == [1, 0, 1, 0]
    assert "notes.txt" in rows[1]["error"]


def test_a_picture_in_a_form_needs_no_file_name(client: TestClient, encode: Encode) -> None:
    part = b"--b\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name=x\r\n\r\n"
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/api/predict", content=part + encode() + b"\r\n--b--\r\n", headers=kind)
    assert [row["name"] for row in answer.json()["predictions"]] == ["picture"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "words"),
    [
        (b"hello", "image/png", 415, "cannot read picture"),
        (b"", "image/png", 422, "no body"),
        (b"{}", "application/json", 415, "application/json"),
        (b"x", "multipart/form-data", 422, "cannot be read"),
        (b"x", "multipart/form-data; boundary=b", 422, "cannot be read"),
        (b"--b\r\n", "multipart/form-data; boundary=b", 422, "cannot be read"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 422, "no pictures"),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
            "not a file",
        ),
        (bomb(9_000, 9_000), "image/png", 413, "9,000 x 9,000 pixels"),
        (bomb(60_000, 60_000), "image/png", 413, "pixels"),
    ],
    ids=range(10),
)
def test_bodies_that_are_not_pictures_are_refused(
    client: TestClient, content: bytes, kind: str, status: int, words: str
) -> None:
    answer = client.post("/api/predict", content=content, headers={"content-type": kind})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_palette_picture_without_a_palette_stops_no_other(
    client: TestClient, encode: Encode
) -> None:
    content = bytearray(encode(9, (1, 1)))
    content[25] = 3  # the colour type, from RGB to palette
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    assert client.post("/api/predict", content=bytes(content), headers=PNG).status_code == 422
    files = [("pictures", ("a.png", bytes(content))), ("pictures", ("b.png", encode(9)))]
    rows = client.post("/api/predict", files=files).json()["predictions"]
    assert ["error" in row for row in rows] == [True, False]


def test_limits(served: Run, encode: Encode) -> None:
    limits = Limits(body=3000, pictures=2, pixels=2000)
    with TestClient(create_app(served, limits), "http://127.0.0.1") as client:
        answer = client.post("/api/predict", content=b"x" * 3001, headers=PNG)
        assert answer.status_code == 413
        assert "0.003 MB" in answer.json()["error"]
        three = [("pictures", (f"{n}.png", encode(n), "image/png")) for n in range(3)]
        answer = client.post("/api/predict", files=three)
        assert answer.status_code == 413
        assert "at most 2" in answer.json()["error"]
        answer = client.post("/api/predict", content=encode(9, (60, 60)), headers=PNG)
        assert answer.status_code == 413
    for full in (Limits(waiting=0), Limits(buffered=10)):
        with TestClient(create_app(served, full), "http://127.0.0.1") as client:
            answer = client.post("/api/predict", content=encode(), headers=PNG)
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"


def test_large_pictures_are_decoded_one_at_a_time(
    client: TestClient, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peewit.images.reader.LARGE", 2000)
    busy = threading.Lock()
    found = []

    def decode(content: bytes, name: str, *, limit: int, **size: Any) -> np.ndarray:
        if limit > 2000:
            alone = busy.acquire(blocking=False)
            found.append(alone)
            time.sleep(0.05)
            if alone:
                busy.release()
        return read_sized(content, name, limit=limit, **size)

    monkeypatch.setattr("peewit.prediction.engines.read_sized", decode)

    def ask() -> None:
        client.post("/api/predict", content=encode(5, (60, 60)), headers=PNG).raise_for_status()
        client.post("/api/predict", content=encode(5), headers=PNG).raise_for_status()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.parametrize("query", ["top=0", "top=x", "heat_map=perhaps"])
def test_invalid_parameters(client: TestClient, encode: Encode, query: str) -> None:
    answer = client.post(f"/api/predict?{query}", content=encode(), headers=PNG)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(query.partition("=")[0] + ": ")


@pytest.mark.parametrize("query", ["", "top=1", "top=1&", "heat_map=true", "top=2&heat_map=false"])
def test_the_fast_path_and_fastapi_return_the_same_response(
    client: TestClient, encode: Encode, query: str
) -> None:
    # an unknown parameter is ignored, but takes the request off the fast path
    for content in (encode(77), b"no picture", b""):
        fast, slow = (
            client.post(f"/api/predict?{text}", content=content, headers=PNG)
            for text in (query, f"{query}&unknown=1")
        )
        assert fast.status_code == slow.status_code
        assert fast.json() == slow.json()
        assert dict(fast.headers) == dict(slow.headers)


def test_the_model_states_its_test_accuracy_and_no_paths(client: TestClient, served: Run) -> None:
    facts = client.get("/api/model").json()
    assert facts["classes"] == list(served.class_names)
    assert facts["accuracy"]["share"] == served.metrics["accuracy"]
    assert facts["accuracy"]["split"] == "test"
    assert str(served.path.parent) not in client.get("/api/model").text


def test_metrics_count_responses_pictures_and_batches(served: Run, encode: Encode) -> None:
    with TestClient(create_app(served), "http://127.0.0.1") as client:
        client.post("/api/predict", content=encode(), headers=PNG)
        client.get("/made-up/1")
        text = client.get("/metrics").text
    assert 'peewit_requests_total{path="/api/predict",status="200"} 1.0' in text
    assert 'peewit_requests_total{path="other",status="404"} 1.0' in text
    assert "peewit_pictures_total 1.0" in text
    assert "peewit_batch_pictures_count 1.0" in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "10.0.0.7"}, 403),
        ({"host": ""}, 403),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1"}, 200),
        ({"host": "127.0.0.1", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, 403),
        ({"host": "127.0.0.1", "origin": "null"}, 403),
        ({"host": "127.0.0.1", "origin": "http://["}, 403),
        ({"host": "["}, 403),
    ],
)
def test_foreign_hosts_and_origins_are_refused(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.get("/healthz", headers=headers).status_code == status


def test_other_names_only_if_they_were_allowed(served: Run) -> None:
    app = create_app(served, names=("My.Machine",), any_address=True)
    with TestClient(app, "http://127.0.0.1") as client:
        for host, status in (
            ("my.machine:80", 200),
            ("10.0.0.7", 200),
            ("[fe80::1]:8000", 200),
            ("evil.example", 403),
        ):
            assert client.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/static/page.js", "/static/page.css", "/static/icon.svg", "/nothing"]
)
def test_security_headers_and_no_resources_from_other_hosts(client: TestClient, path: str) -> None:
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.status_code == (404 if path == "/nothing" else 200)
    if answer.status_code == 200:
        assert "https://" not in answer.text
        again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == policy


def test_files_have_their_types_and_no_others_are_served(client: TestClient) -> None:
    for name, expected in (
        ("page.js", "text/javascript"),
        ("page.css", "text/css"),
        ("page.html", "text/html"),
        ("icon.svg", "image/svg+xml"),
        ("strings.zh.json", "application/json"),
    ):
        kind = client.get(f"/static/{name}").headers["content-type"]
        assert kind.partition(";")[0] == expected
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not found"), path


def test_both_languages_have_the_same_strings(client: TestClient) -> None:
    english, chinese = (client.get(f"/static/strings.{name}.json").json() for name in ("en", "zh"))
    # in English the server's own message is shown
    server_errors = {key for key in chinese if key.startswith("error-")}
    assert set(english) <= set(chinese)
    assert set(chinese) - set(english) <= server_errors


def test_a_bug_is_logged_and_not_revealed_to_the_client(
    client: TestClient, encode: Encode, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("peewit.serving.engine.Engine.classify", broken)
    answer = client.post("/api/predict", content=encode(), headers=PNG)
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert "ZeroDivisionError: secret, while answering /api/predict" in caplog.text
    monkeypatch.undo()
    assert client.post("/api/predict", content=encode(), headers=PNG).status_code == 200


def test_random_bodies_all_get_a_response(client: TestClient) -> None:
    random = np.random.default_rng(0)
    kinds = ("image/png", "application/octet-stream", "multipart/form-data; boundary=b")
    starts = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"--b\r\n")
    seen = set()
    # test_server.py sends ten thousand more over a real connection
    for turn in range(300):
        body = starts[turn % len(starts)] + random.bytes(int(random.integers(0, 400)))
        headers = {"content-type": kinds[turn % len(kinds)]}
        answer = client.post("/api/predict", content=body, headers=headers)
        assert answer.json()["error"]
        seen.add(answer.status_code)
    assert seen <= {413, 415, 422}


def test_grey_and_transparent_pictures(client: TestClient) -> None:
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        stream = io.BytesIO()
        Image.new(mode, (20, 10)).save(stream, "PNG")
        answer = client.post("/api/predict", content=stream.getvalue(), headers=PNG)
        assert answer.status_code == 200, (mode, answer.text)


@pytest.mark.parametrize(("threshold", "rejected"), [(0.0, False), (1.0, True), (None, None)])
def test_the_response_says_whether_a_picture_is_of_no_class(
    tmp_path: Path, encode: Encode, threshold: float | None, rejected: bool | None
) -> None:
    run = make_run(tmp_path / "run", reject_below=threshold)
    with TestClient(create_app(run), "http://127.0.0.1") as client:
        (row,) = client.post("/api/predict", content=encode(), headers=PNG).json()["predictions"]
    assert row.get("rejected") is rejected
