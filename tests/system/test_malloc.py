"""Freed memory is kept while training, and given back afterwards."""

from __future__ import annotations

import platform

import pytest
import torch

from peewit.system import malloc as allocator

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory"
)


def page_faults(steps: int, megabytes: int = 24) -> int:
    """Count the pages that the system had to provide while tensors came and went in steps."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        # 24 MB each: all three together are over glibc's own limit
        first, second, third = (torch.ones(megabytes << 18) for _ in range(3))
        del first, second, third
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@glibc
@pytest.mark.parametrize("megabytes", [24, 40])  # below and above what glibc always maps
def test_freed_memory_is_kept_while_entered_and_not_after(megabytes: int) -> None:
    with allocator.freed_memory_kept():
        page_faults(3, megabytes)
        kept = page_faults(10, megabytes)
    given_back = page_faults(1, megabytes)
    assert given_back > 0
    assert kept < 5 * given_back


@glibc
def test_settings_of_the_user_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator._glibc() is not None
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert allocator._glibc() is None


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with allocator.freed_memory_kept():
        assert allocator._glibc() is None
