"""Bad archives on the command line: one sentence on stderr, and the exit code."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peewit.__main__ import main
from peewit.data.cifar import layouts
from peewit.data.cifar.layouts import Layout

Files = Callable[..., dict[str, bytes]]
Write = Callable[[Path, dict[str, bytes], str], Path]


@pytest.fixture
def files(make_files: Files, form: Callable[..., Layout]) -> dict[str, bytes]:
    return make_files(form("cifar10"))


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs ``peewit show`` and returns the exit code and the message."""

    def show(*arguments: str) -> tuple[int, str]:
        code = main(["show", *arguments, "--out", "grid.png"])
        printed = capsys.readouterr()
        if code:
            assert printed.out == ""
            assert not Path("grid.png").exists()
        assert printed.err.count("\n") == 1, printed.err
        return code, printed.err.strip()

    return show


Show = Callable[..., tuple[int, str]]


def test_missing(show: Show) -> None:
    assert show("gone.tar.gz") == (1, "peewit: cannot find gone.tar.gz; check the path")


def test_truncated(show: Show, cifar10: Path) -> None:
    cifar10.write_bytes(cifar10.read_bytes()[:50_000])
    sentence = f"peewit: cannot read {cifar10}: it is truncated; download it again"
    assert show(str(cifar10)) == (1, sentence)
    assert show("cifar10", "--data", str(cifar10)) == (1, sentence)


def test_another_checksum_is_only_a_note(show: Show, cifar10: Path) -> None:
    code, sentence = show(str(cifar10))
    assert code == 0
    assert sentence.startswith(f"note: {cifar10} is valid, but its checksum is not the published")
    assert Path("grid.png").exists()


def test_a_web_page(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "page.tar.gz"
    path.write_text("<!DOCTYPE html><title>503</title>")
    code, sentence = show(str(path))
    assert code == 1
    assert "it is a web page, not an archive" in sentence


def test_a_hostile_pickle(
    show: Show, files: dict[str, bytes], make_archive: Write, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    files["data_batch_3"] = b"cos\nmkdir\n(V" + str(victim).encode() + b"\ntR."
    code, sentence = show(str(make_archive(tmp_path / "a.tar.gz", files, "d")))
    assert code == 1
    assert "data_batch_3 in " in sentence
    assert "it imports os.mkdir" in sentence
    assert not victim.exists()


def test_path_traversal(
    show: Show, files: dict[str, bytes], make_archive: Write, tmp_path: Path
) -> None:
    path = make_archive(tmp_path / "a.tar.gz", files, "../outside")
    before = sorted(tmp_path.parent.rglob("*"))
    code, sentence = show(str(path))
    assert code == 1
    assert "'../outside/data_batch_1' points outside the archive's folder" in sentence
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["data_batch_1", "readme.html"])
def test_a_bomb(show: Show, make_archive: Write, tmp_path: Path, name: str) -> None:
    path = make_archive(tmp_path / "a.tar.gz", {name: bytes(30_000_000)}, "d")
    assert path.stat().st_size < 200_000
    code, sentence = show(str(path))
    assert code == 1
    assert "is refused: " in sentence
    assert "at most 226,880" in sentence or "it decompresses to more than" in sentence


def test_a_wrong_layout(
    show: Show, files: dict[str, bytes], make_archive: Write, tmp_path: Path
) -> None:
    del files["data_batch_5"], files["batches.meta"]
    path = make_archive(tmp_path / "a.tar.gz", files, "d")
    assert show(str(path)) == (
        1,
        f"peewit: {path} is incomplete: it lacks batches.meta, data_batch_5; download it again",
    )
    path = make_archive(tmp_path / "a.tar.gz", {"photos/cat.txt": b"x"}, "d")
    code, sentence = show(str(path))
    assert code == 1
    assert "does not contain CIFAR-10 or CIFAR-100" in sentence


def test_wrong_shapes(
    show: Show, files: dict[str, bytes], make_archive: Write, tmp_path: Path
) -> None:
    batch = {b"labels": [0] * 20, b"data": np.zeros((20, 3, 32, 32), np.uint8)}
    files["test_batch"] = pickle.dumps(batch, protocol=2)
    code, sentence = show(str(make_archive(tmp_path / "a.tar.gz", files, "d")))
    assert code == 1
    assert "test_batch in " in sentence
    assert "shape (20, 3, 32, 32) instead of (20, 3072)" in sentence


def test_an_uncompressed_tar(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("d/test_batch"), io.BytesIO())
    code, sentence = show(str(path))
    assert code == 1
    assert "it is an uncompressed tar file; extract it" in sentence


def test_not_found_and_no_network(show: Show, tmp_path: Path) -> None:
    code, sentence = show("cifar10")
    assert code == 1
    assert "cannot download CIFAR-10: 127.0.0.1:9: " in sentence
    assert layouts.find_layout("cifar10").sha256 in sentence
    assert str(tmp_path / "home") in sentence


def test_an_unknown_source(show: Show) -> None:
    code, sentence = show("cifar11")
    assert code == 2
    assert "there is no source cifar11: known are cifar10, cifar100 and digits" in sentence


def test_a_cache_that_cannot_be_written_is_only_a_note(
    show: Show, cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file in its place")
    monkeypatch.setattr(
        "peewit.data.cifar.cache.file_checksum", lambda *_: layouts.LAYOUTS[0].sha256
    )
    code, sentence = show(str(cifar10))
    assert code == 0
    assert sentence.startswith("note: cannot cache the decoded images in ")
