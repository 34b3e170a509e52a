"""The cache of features: what is kept, and what survives kills, damage and full disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peewit.transfer.cache import FeatureCache

HASHES = np.array([9, 3, 2**64 - 1], np.uint64)
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


def filled(place: Path) -> FeatureCache:
    cache = FeatureCache("made", 4, place)
    cache.add(HASHES, FEATURES)
    return cache


def test_features_come_back_by_hash(tmp_path: Path) -> None:
    filled(tmp_path)
    again = FeatureCache("made", 4, tmp_path)
    assert again.known(np.array([3, 4, 9], np.uint64)).tolist() == [True, False, True]
    order = [2, 0, 1, 0]
    np.testing.assert_array_equal(again.get(HASHES[order]), FEATURES[order])


def test_features_of_two_processes_are_kept(tmp_path: Path) -> None:
    one, other = (FeatureCache("made", 4, tmp_path) for _ in range(2))
    one.add(HASHES[:1], FEATURES[:1])
    other.add(HASHES[1:], FEATURES[1:])
    np.testing.assert_array_equal(FeatureCache("made", 4, tmp_path).get(HASHES), FEATURES)


def test_another_name_has_other_features(tmp_path: Path) -> None:
    filled(tmp_path)
    assert not FeatureCache("other", 4, tmp_path).known(HASHES).any()


@pytest.mark.parametrize("cut", [1, 10, 23, 30])
def test_an_incomplete_record_is_left_out_and_overwritten(tmp_path: Path, cut: int) -> None:
    file = filled(tmp_path).file
    file.write_bytes(file.read_bytes()[:-cut])
    complete = 2 if cut <= 28 else 1  # a record has 28 bytes
    again = FeatureCache("made", 4, tmp_path)
    assert again.known(HASHES).sum() == complete
    again.add(HASHES[complete:], FEATURES[complete:])
    np.testing.assert_array_equal(FeatureCache("made", 4, tmp_path).get(HASHES), FEATURES)


@pytest.mark.parametrize("place", [0, 9, 20])
def test_a_damaged_record_is_left_out(tmp_path: Path, place: int) -> None:
    file = filled(tmp_path).file
    content = bytearray(file.read_bytes())
    content[28 + place] ^= 1  # in the hash, the checksum or the features of the second
    file.write_bytes(bytes(content))
    again = FeatureCache("made", 4, tmp_path)
    assert again.known(HASHES).tolist() == [True, False, True]
    np.testing.assert_array_equal(again.get(HASHES[[0, 2]]), FEATURES[[0, 2]])


def test_without_a_disk_features_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder is needed")
    cache = FeatureCache("made", 4, tmp_path / "file")
    cache.add(HASHES, FEATURES)
    np.testing.assert_array_equal(cache.get(HASHES), FEATURES)
