from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peewit.data.cifar import cache, layouts
from peewit.data.cifar.archive import BadArchiveError
from peewit.data.cifar.decoding import Decoded, decode
from peewit.data.cifar.layouts import Layout

Files = Callable[..., dict[str, bytes]]
Form = Callable[..., Layout]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "decoded"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sources that were decoded so far rather than taken from the cache."""
    done: list[Path] = []

    def counting(path: Path, *rest: object) -> Decoded:
        done.append(path)
        return decode(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "decode", counting)
    return done


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_a_cached_entry_is_mapped_and_equal(
    cifar10: Path, folder: Path, decodings: list[Path]
) -> None:
    plain = decode(cifar10)
    for _ in range(3):
        loaded = cache.load(cifar10, folder)
        assert isinstance(loaded.decoded.images, np.memmap)
        assert not loaded.decoded.images.flags.writeable
        np.testing.assert_array_equal(loaded.decoded.images, plain.images)
        np.testing.assert_array_equal(loaded.decoded.labels, plain.labels)
        assert loaded.decoded.class_names == plain.class_names
        assert loaded.published is False
        assert loaded.notes == ()
    assert len(decodings) == 1
    assert len(entries(folder)) == 1


def test_a_warm_start_does_not_read_the_archive(
    cifar10: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load(cifar10, folder)
    state = cifar10.stat()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the archive was opened")

    monkeypatch.setattr(cache, "decode", refuse)
    monkeypatch.setattr(cache, "file_checksum", refuse)
    cache.load(cifar10, folder)
    assert cifar10.stat().st_size == state.st_size


def test_a_replaced_archive_is_decoded_again(
    cifar10: Path, folder: Path, decodings: list[Path]
) -> None:
    cache.load(cifar10, folder)
    before = cifar10.stat()
    # the same size and modification time: only the change time differs
    cifar10.write_bytes(cifar10.read_bytes())
    os.utime(cifar10, ns=(before.st_atime_ns, before.st_mtime_ns))
    cache.load(cifar10, folder)
    assert len(decodings) == 2
    os.utime(cifar10, ns=(1, 1))
    cache.load(cifar10, folder)
    assert len(decodings) == 3
    assert len(entries(folder)) == 1, "old entries are removed"


def test_a_folder_with_a_changed_file_is_decoded_again(
    folder: Path, decodings: list[Path], make_files: Files, form: Form, tmp_path: Path
) -> None:
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    for file, content in make_files(form("cifar10", "binary")).items():
        (extracted / file).write_bytes(content)
    old = cache.load(extracted, folder).decoded.images[:20].copy()
    cache.load(extracted, folder)
    assert len(decodings) == 1
    batch = extracted / "data_batch_1.bin"
    batch.write_bytes(batch.read_bytes()[:-3072] + bytes(3072))
    new = cache.load(extracted, folder).decoded.images[:20]
    assert len(decodings) == 2
    assert not new[19].any()
    np.testing.assert_array_equal(old[:19], new[:19])


@pytest.mark.parametrize("file", ["images", "labels", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "bit", "longer", "empty", "gone", "folder", "pipe"])
def test_a_damaged_entry_is_replaced_with_a_note(
    file: str, damage: str, cifar10: Path, folder: Path, decodings: list[Path]
) -> None:
    cache.load(cifar10, folder)
    victim = entries(folder)[0] / file
    content = bytearray(victim.read_bytes())
    victim.unlink()
    if damage == "cut":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        content[len(content) * 3 // 4] ^= 4
        victim.write_bytes(content)
    elif damage == "longer":
        victim.write_bytes(content + b" x")
    elif damage == "empty":
        victim.touch()
    elif damage == "folder":
        victim.mkdir()
    elif damage == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("there are no named pipes here")
        os.mkfifo(victim)
    loaded = cache.load(cifar10, folder)
    (note,) = loaded.notes
    assert note.endswith("are damaged or unreadable: decoding them again")
    np.testing.assert_array_equal(loaded.decoded.images, decode(cifar10).images)
    assert len(decodings) == 2
    assert cache.load(cifar10, folder).notes == ()
    assert len(decodings) == 2, "the new entry is used"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("file", ["images", "labels", "about.json"])
def test_no_changed_byte_is_used_or_blocks_the_data_set(
    file: str, cifar10: Path, folder: Path
) -> None:
    plain = cache.load(cifar10, folder).decoded
    victim = entries(folder)[0] / file
    content = victim.read_bytes()
    # the first bytes (once a header, which numpy's parser stumbled over) and the last ones
    positions = [*range(min(600, len(content))), -1]
    if file == "images":  # checking its 368,640 bytes takes a moment
        positions = positions[::8]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1
        victim.write_bytes(damaged)
        found = cache._open(entries(folder)[0])
        assert found is None or found.decoded.class_names == plain.class_names
        assert file == "about.json" or found is None


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "loop"])
def test_something_else_in_place_of_an_entry_is_replaced(
    kind: str, cifar10: Path, folder: Path, tmp_path: Path, decodings: list[Path]
) -> None:
    cache.load(cifar10, folder)
    (entry,) = entries(folder)
    shutil.rmtree(entry)
    elsewhere = tmp_path / "elsewhere"
    if kind == "file":
        entry.write_text("not a folder")
    else:
        if kind == "link":
            elsewhere.mkdir()
            (elsewhere / "mine").touch()
        entry.symlink_to(entry if kind == "loop" else elsewhere)
    assert len(cache.load(cifar10, folder).notes) == 1
    assert isinstance(cache.load(cifar10, folder).decoded.images, np.memmap)
    assert len(decodings) == 2, "the new entry is used"
    assert entry.is_dir()
    assert not entry.is_symlink()
    assert list(folder.iterdir()) == [entry]
    if kind == "link":
        assert (elsewhere / "mine").exists(), "what a link points to is not ours"


def test_an_entry_of_an_older_version_is_removed(cifar10: Path, folder: Path) -> None:
    place, _ = cache._keys(cifar10)
    old = folder / f"{place}-0123456789abcdef"
    old.mkdir(parents=True)
    (old / "images.npy").touch()
    assert cache.load(cifar10, folder).notes == ()
    assert not old.exists()


def test_two_processes_that_replace_a_damaged_entry(
    cifar10: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load(cifar10, folder)
    (entry,) = entries(folder)
    (entry / "images").write_bytes(b"cut")

    def overtaken(path: Path, *rest: object) -> Decoded:
        monkeypatch.setattr(cache, "decode", decode)  # the other process is faster
        (note,) = cache.load(cifar10, folder).notes
        assert "decoding them again" in note
        return decode(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "decode", overtaken)
    loaded = cache.load(cifar10, folder)
    assert isinstance(loaded.decoded.images, np.memmap)
    np.testing.assert_array_equal(loaded.decoded.images, decode(cifar10).images)
    assert list(folder.iterdir()) == [entry]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_only_a_note(
    code: int, cifar10: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", full)
    loaded = cache.load(cifar10, folder)
    assert not isinstance(loaded.decoded.images, np.memmap)
    assert loaded.decoded.images.shape == (120, 32, 32, 3)
    (note,) = loaded.notes
    assert str(folder) in note
    assert os.strerror(code).lower() in note
    assert list(folder.iterdir()) == [], "no partial entry is left"


def test_a_file_in_place_of_the_cache_is_only_a_note(cifar10: Path, folder: Path) -> None:
    folder.write_text("mine")
    assert "cannot cache" in cache.load(cifar10, folder).notes[0]
    assert folder.read_text() == "mine"


def test_old_entries_and_dead_folders_are_removed(
    cifar10: Path, folder: Path, tmp_path: Path
) -> None:
    folder.mkdir()
    unrelated = folder / "not-ours"
    unrelated.mkdir()
    for age, name in ((2 * 3600, ".building-old"), (0, ".building-now")):
        (folder / name).mkdir()
        os.utime(folder / name, (time.time() - age,) * 2)
    sources = [tmp_path / f"{number}.tar.gz" for number in range(cache.KEPT + 2)]
    for number, source in enumerate(sources):
        source.write_bytes(cifar10.read_bytes())
        before = set(entries(folder))
        cache.load(source, folder)
        (new,) = set(entries(folder)) - before
        os.utime(new, (1000 + number,) * 2)
    cache.load(sources[-1], folder)
    kept = {
        json.loads((e / "about.json").read_text())["about"]["source"]
        for e in folder.glob("*-*/")
        if (e / "about.json").exists()
    }
    assert kept == {str(source) for source in sources[-cache.KEPT :]}
    assert unrelated.is_dir()
    assert (folder / ".building-now").is_dir()
    assert not (folder / ".building-old").exists()


def test_a_damaged_source_leaves_nothing(cifar10: Path, folder: Path) -> None:
    cifar10.write_bytes(cifar10.read_bytes()[:-100])
    with pytest.raises(BadArchiveError, match="truncated"):
        cache.load(cifar10, folder)
    assert not folder.exists()


def test_a_missing_source_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadArchiveError, match="nothing here: no such file"):
        cache.load(tmp_path / "nothing here", folder)


def test_a_published_checksum_is_recognised(
    cifar10: Path, folder: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = layouts.file_checksum(cifar10, "sha256")
    known = tuple(
        replace(layout, sha256=digest) if layout == form("cifar10") else layout
        for layout in layouts.LAYOUTS
    )
    monkeypatch.setattr(layouts, "LAYOUTS", known)
    assert cache.load(cifar10, folder).published is True
    assert cache.load(cifar10, folder).published is True


def test_the_real_archive(full_size: None, archive: Path, folder: Path) -> None:
    first = cache.load(archive, folder).decoded
    second = cache.load(archive, folder).decoded
    assert isinstance(first.images, np.memmap)
    assert first.images.shape == second.images.shape == (60_000, 32, 32, 3)
