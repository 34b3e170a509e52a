"""Pictures are decoded once, and what is used is always what the files contain."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from made_pictures import folder_of_pictures
from peewit.data import caches
from peewit.data.dataset import Dataset
from peewit.data.packing import at_size, decoding, sizes
from peewit.data.packing.decoding import Progress, chunk_length
from peewit.data.packing.entry import BUILDING, RECORD
from peewit.data.pictures import Pictures
from peewit.data.sources import load
from peewit.data.store import prefetch
from peewit.errors import Interrupted, PeewitError, UsageError

A_CLASS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 60 pictures."""
    return folder_of_pictures(tmp_path / "pictures", A_CLASS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make eight chunks of 60 pictures."""
    monkeypatch.setattr(decoding, "MOST_OF_CHUNK", 8)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each picture that is decoded."""
    names: list[str] = []
    before = Pictures.decode_content

    def counted(self: Pictures, content: bytes, number: int) -> np.ndarray:
        names.append(self.listing.names[number])
        return before(self, content, number)

    monkeypatch.setattr(Pictures, "decode_content", counted)
    return names


def packed(folder: Path, notes: list[str] | None = None, side: int = 8) -> Dataset:
    """List the folder, and return its pictures decoded."""
    note: Callable[[str], None] = [].append if notes is None else notes.append
    return at_size(load(str(folder)).train, side, side, "crop", note)


def direct(folder: Path, side: int = 8) -> np.ndarray:
    """Return all pictures, decoded without the cache."""
    images = load(str(folder)).train.images.store.at(side, side, "crop")
    return np.asarray(images[:])


def entry_of() -> Path:
    """Return the only entry of the cache."""
    (found,) = (path for path in caches.folder_of_pictures().iterdir() if path.is_dir())
    return found


def test_pictures_are_decoded_once(folder: Path, decoded: list[str]) -> None:
    first = packed(folder)
    assert len(decoded) == len(set(decoded)) == 60
    second = packed(folder)
    assert len(decoded) == 60
    for dataset in (first, second):
        assert np.array_equal(np.asarray(dataset.images), direct(folder))
        assert dataset.names is not None
        assert dataset.names[0] == "blue/0.png"
        assert dataset.class_names == ("blue", "green", "red")
    assert first.fingerprint == second.fingerprint


def test_indexing_is_that_of_an_array(folder: Path) -> None:
    images, expected = packed(folder).images, direct(folder)
    some = np.array([59, 0, 3, 4, 5, 3])
    for rows in (7, -1, slice(5, 40, 3), some, expected[:, 0, 0, 0] > 100, [], slice(3, 3)):
        assert np.array_equal(images[rows], expected[rows])
    assert np.array_equal(images[some, 2:4, 1], expected[some, 2:4, 1])
    with pytest.raises(IndexError):
        images[60]


def test_facts_are_those_of_the_pixels(folder: Path) -> None:
    dataset = packed(folder).take(np.arange(5, 50, 3))
    array = Dataset(np.asarray(dataset.images), dataset.labels, dataset.class_names)
    assert np.array_equal(dataset.image_hashes, array.image_hashes)
    for ours, theirs in zip(dataset.channel_statistics, array.channel_statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_pixels_are_not_read_for_the_fingerprint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(folder)
    dataset = packed(folder)
    monkeypatch.setattr(sizes.Recorded, "__getitem__", None)
    assert len(dataset.fingerprint) == 64
    assert len(set(dataset.image_hashes.tolist())) == 60
    assert dataset.channel_statistics[0].shape == (3,)


def test_another_size_or_fit_is_another_entry(folder: Path, decoded: list[str]) -> None:
    train = load(str(folder)).train
    shapes = [(8, 8, "crop"), (8, 8, "stretch"), (6, 10, "crop")]
    found = [np.asarray(at_size(train, *shape, print).images) for shape in shapes]
    assert len(decoded) == 180
    assert found[2].shape == (60, 6, 10, 3)
    assert not np.array_equal(found[0], found[1])
    assert len(caches.entries()) == 3


def test_only_changed_and_added_pictures_are_decoded_again(
    folder: Path, decoded: list[str]
) -> None:
    before = packed(folder).fingerprint
    other = folder_of_pictures(folder.parent / "other", A_CLASS + 1, seed=1)
    (other / "red" / "3.png").replace(folder / "red" / "3.png")
    (other / "blue" / "20.png").replace(folder / "blue" / "20.png")
    (folder / "green" / "7.png").unlink()
    decoded.clear()
    dataset = packed(folder)
    assert sorted(decoded) == ["blue/20.png", "red/3.png"]
    assert dataset.fingerprint != before
    assert np.array_equal(np.asarray(dataset.images), direct(folder))
    # the earlier version is of no use any more
    assert len(caches.entries()) == 1


@pytest.mark.parametrize("file", ["pixels", "facts", "chunks", "about.json", "failures"])
@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_entry_is_decoded_again(folder: Path, file: str, damage: str) -> None:
    (folder / "red" / "0.png").write_bytes(b"no picture")
    intact = packed(folder)
    expected, fingerprint = np.asarray(intact.images), intact.fingerprint
    path = entry_of() / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(bytes(content) if damage == "changed" else content[: len(content) // 2])
    for _ in range(2):  # also the next time
        dataset = packed(folder)
        assert np.array_equal(np.asarray(dataset.images), expected)
        assert dataset.fingerprint == fingerprint


def test_damage_is_found_when_the_pictures_are_used(folder: Path, decoded: list[str]) -> None:
    expected = np.asarray(packed(folder).images)
    dataset = packed(folder)
    with (entry_of() / "pixels").open("r+b") as file:
        file.seek(30 * 8 * 8 * 3 + 5)
        file.write(b"\x00\x01\x02")
    decoded.clear()
    assert np.array_equal(dataset.images[[0, 1, 2]], expected[:3])
    assert not decoded
    assert np.array_equal(dataset.images[[29, 30, 31, 30]], expected[[29, 30, 31, 30]])
    assert dataset.names is not None
    assert set(decoded) == {dataset.names[30]}
    decoded.clear()
    for again in (dataset, packed(folder)):  # the file has been repaired
        assert np.array_equal(again.images[30], expected[30])
    assert not decoded


def test_damage_that_cannot_be_repaired_is_an_error(folder: Path) -> None:
    packed(folder)
    dataset = packed(folder)
    for path in (folder / "green").iterdir():
        path.unlink()
    pixels = entry_of() / "pixels"
    pixels.write_bytes(bytes(pixels.stat().st_size))
    with pytest.raises(PeewitError, match=r"cannot read .*green"):
        dataset.images[30]


def test_unreadable_files_are_left_out_and_named(folder: Path, decoded: list[str]) -> None:
    (folder / "green" / "3.png").write_bytes(b"no picture")
    (folder / "red" / "0.png").write_bytes(b"")
    for _ in range(2):
        notes: list[str] = []
        dataset = packed(folder, notes)
        assert len(dataset) == 58
        assert dataset.names is not None
        assert not {"green/3.png", "red/0.png"} & set(dataset.names)
        assert dataset.class_counts.tolist() == [20, 19, 19]
        assert np.array_equal(dataset.images[57], direct_of(folder, "red/9.png"))
        assert len(notes) == 1
        assert "2 of 60 pictures" in notes[0]
        assert "green/3.png" in notes[0]
        assert "red/0.png" in notes[0]
    assert len(decoded) == 60 + 2  # the second time only by direct_of()


def direct_of(folder: Path, name: str) -> np.ndarray:
    """Return one picture, decoded without the cache."""
    train = load(str(folder)).train
    assert train.names is not None
    pictures = train.images.store.at(8, 8, "crop")
    return np.asarray(pictures[list(train.names).index(name)])


def test_a_folder_of_unreadable_files_is_refused(folder: Path) -> None:
    for path in folder.glob("*/*"):
        path.write_bytes(b"no picture")
    with pytest.raises(PeewitError, match="none of the 60 pictures"):
        packed(folder)


def test_a_file_that_could_not_be_read_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    from peewit.data.folder import FolderFiles

    before = FolderFiles.read

    def forbidden(self: FolderFiles, number: int) -> bytes:
        if self.names[number] == "red/4.png":
            raise PeewitError("cannot read red/4.png", "permission denied")
        return before(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "read", forbidden)
        assert len(packed(folder)) == 59
        assert len(packed(folder)) == 59
    decoded.clear()
    assert len(packed(folder)) == 60
    assert decoded == ["red/4.png"]


class Killed(BaseException):
    """Ends the process, as far as the cache can see."""


def killed_after(pictures: int, folder: Path) -> None:
    """Begin to decode a folder, and stop when so many pictures are in the cache."""

    def kill(progress: Progress) -> None:
        chunks = next(caches.folder_of_pictures().glob(f"{BUILDING}*")) / "chunks"
        if (
            chunks.exists()
            and chunks.stat().st_size // RECORD * chunk_length((8, 8, 3)) >= pictures
        ):
            raise Killed

    with pytest.raises(Killed):
        at_size(load(str(folder)).train, 8, 8, "crop", print, kill)


@pytest.fixture
def shown_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report the progress after each chunk."""
    monkeypatch.setattr(decoding, "INTERVAL", 0)


@pytest.mark.usefixtures("shown_often")
def test_a_killed_process_is_continued(folder: Path, decoded: list[str]) -> None:
    (folder / "blue" / "1.png").write_bytes(b"no picture")
    killed_after(24, folder)
    unfinished = entry_of()
    assert unfinished.name.startswith(BUILDING)
    # what a process that is killed in the middle of a chunk leaves
    for file in ("pixels", "facts", "failures", "chunks"):
        with (unfinished / file).open("ab") as opened:
            opened.write(b"[12")
    decoded.clear()
    dataset = packed(folder)
    assert 0 < len(decoded) <= 60 - 24
    assert len(dataset) == 59
    assert np.array_equal(dataset.images[0], direct_of(folder, "blue/0.png"))
    assert np.array_equal(dataset.images[58], direct_of(folder, "red/9.png"))
    assert len(caches.entries()) == 1


@pytest.mark.usefixtures("shown_often")
def test_a_changed_folder_does_not_continue_the_old_one(folder: Path) -> None:
    killed_after(16, folder)
    folder_of_pictures(folder, A_CLASS, seed=1)
    os.utime(folder / "red" / "0.png", ns=(1, 1))
    assert np.array_equal(np.asarray(packed(folder).images), direct(folder))


def test_progress_comes_to_an_end(folder: Path) -> None:
    shown: list[Progress] = []
    at_size(load(str(folder)).train, 8, 8, "crop", print, shown.append)
    assert (shown[-1].done, shown[-1].total) == (60, 60)
    assert "60 of 60" in str(shown[-1])


def test_a_stop_while_decoding_keeps_what_is_decoded(folder: Path, shown_often: None) -> None:
    def stop(progress: Progress) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        at_size(load(str(folder)).train, 8, 8, "crop", print, stop)
    assert not [one for one in caches.entries() if one.state == "complete"]
    assert len(packed(folder)) == 60


def test_two_processes_decode_one_folder(folder: Path, decoded: list[str]) -> None:
    found: list[Dataset] = []
    # each has listed the folder itself, as another process would
    threads = [threading.Thread(target=lambda: found.append(packed(folder))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3
    assert len(decoded) == 60
    assert len({dataset.fingerprint for dataset in found}) == 1


def test_an_archive_is_read_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    from peewit.data.folder import FolderFiles

    expected = np.asarray(packed(folder).images)
    caches.clean(everything=True)
    numbers: list[int] = []
    before = FolderFiles.read

    def read(self: FolderFiles, number: int) -> bytes:
        numbers.append(number)
        return before(self, number)

    monkeypatch.setattr(FolderFiles, "sequential", True)
    monkeypatch.setattr(FolderFiles, "read", read)
    assert np.array_equal(np.asarray(packed(folder).images), expected)
    assert numbers == list(range(60))
    # decoding while training would read it from its beginning again and again
    caches.clean(everything=True)
    monkeypatch.setenv(caches.LIMIT, "0")
    monkeypatch.setattr(sizes, "IN_MEMORY", 0)
    with pytest.raises(PeewitError, match="from beginning to end"):
        packed(folder)


@pytest.fixture
def tiny_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no memory for pictures that cannot be cached."""
    monkeypatch.setattr(sizes, "IN_MEMORY", 0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_without_room_in_the_cache_the_data_is_the_same(
    folder: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    (folder / "red" / "0.png").write_bytes(b"no picture")
    cached = packed(folder)
    expected = np.asarray(cached.images)
    caches.clean(everything=True)
    monkeypatch.setenv(caches.LIMIT, "0")
    if not in_memory:
        monkeypatch.setattr(sizes, "IN_MEMORY", 0)
    notes: list[str] = []
    dataset = packed(folder, notes)
    assert any(caches.LIMIT in note and "limit" in note for note in notes)
    assert dataset.fingerprint == cached.fingerprint
    assert np.array_equal(np.asarray(dataset.images), expected)
    assert np.array_equal(dataset.images[[5, 1]], expected[[5, 1]])
    for ours, theirs in zip(dataset.channel_statistics, cached.channel_statistics, strict=True):
        assert np.array_equal(ours, theirs)
    # facts are known from now on, but pixels are not on the disk
    assert sum(one.bytes for one in caches.entries()) < expected.size


def test_pictures_decoded_while_used_are_prefetched(
    folder: Path, tiny_memory: None, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setenv(caches.LIMIT, "0")
    dataset = packed(folder).take(np.arange(10, 30))
    expected = direct(folder)[10:30]
    decoded.clear()
    prefetch(dataset.images, np.array([3, 1]))
    assert np.array_equal(dataset.images[[3, 1]], expected[[3, 1]])
    assert sorted(decoded) == sorted([dataset.names[1], dataset.names[3]] if dataset.names else [])
    prefetch(dataset.images, np.array([4]))
    assert np.array_equal(dataset.images[[5]], expected[[5]])  # others than were prefetched


def test_a_picture_that_changes_while_it_is_used_is_an_error(
    folder: Path, tiny_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caches.LIMIT, "0")
    dataset = packed(folder)
    (folder / "blue" / "1.png").write_bytes((folder / "blue" / "2.png").read_bytes())
    dataset.images[[0, 2]]
    with pytest.raises(PeewitError, match=r"blue/1\.png .*has changed"):
        dataset.images[[0, 1]]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail with ENOSPC after four chunks."""
    from peewit.data.packing.entry import Builder

    before, chunks = Builder.write, 0

    def write(self: Builder, chunk: decoding.Chunk) -> None:
        nonlocal chunks
        chunks += 1
        if chunks > 4:
            raise OSError(28, "No space left on device")
        before(self, chunk)

    monkeypatch.setattr(Builder, "write", write)
    return


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_full_disk_costs_only_the_cache(
    folder: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    if not in_memory:
        monkeypatch.setattr(sizes, "IN_MEMORY", 0)
    notes: list[str] = []
    dataset = packed(folder, notes)
    assert len(notes) == 1
    assert "no space left on device" in notes[0]
    # those that were written before the disk was full are not decoded again
    assert decoded.count("blue/0.png") == 1
    assert np.array_equal(np.asarray(dataset.images), direct(folder))
    # and the disk is free again
    assert sum(one.bytes for one in caches.entries()) < 8 * 8 * 3 * 60


def test_a_cache_that_cannot_be_written_to(folder: Path, isolated: Path) -> None:
    caches.folder_of_pictures().parent.mkdir(parents=True)
    caches.folder_of_pictures().write_text("a file")
    notes: list[str] = []
    assert np.array_equal(np.asarray(packed(folder, notes).images), direct(folder))
    assert "cannot cache" in notes[0]


def test_the_least_recently_used_entries_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caches.LIMIT, "0.00003")  # 30 kB: two entries of 11.5 kB and their facts
    folders = [folder_of_pictures(tmp_path / name, 20, seed=n) for n, name in enumerate("abc")]
    packed(folders[0])
    packed(folders[1])
    for age, entry in enumerate(caches.entries(), 1):
        then = time.time() - 10 * age if entry.source.endswith("a") else time.time() - 5_000
        for path in (entry.path, *entry.path.iterdir()):
            os.utime(path, (then, then))
    packed(folders[2])
    kept = {Path(entry.source).name for entry in caches.entries()}
    assert "c" in kept
    assert "b" not in kept


@pytest.mark.parametrize("value", ["much", "-1", "inf", "nan"])
def test_an_invalid_limit_is_refused(
    folder: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(caches.LIMIT, value)
    with pytest.raises(UsageError, match=f"{caches.LIMIT} is {value}"):
        packed(folder)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", 2)
    try:
        (folder / "red" / "0.png").rename(os.fsdecode(os.fsencode(folder / "red") + b"/\xff.png"))
    except OSError:
        pytest.skip("this file system has only Unicode names")
    packed(folder)
    (folder / "red" / "1.png").unlink()
    assert len(packed(folder)) == 5
    about = json.loads((entry_of() / "about.json").read_text())
    assert about["about"]["pictures"] == 5


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="there is nothing to ask")
def test_the_system_is_asked_for_the_next_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    dataset = packed(folder)
    monkeypatch.setattr("os.posix_fadvise", lambda file, *rest: asked.append(rest[:2]))
    prefetch(dataset.images, np.array([3, 1]))
    assert asked == [(3 * 192, 192), (192, 192)]
