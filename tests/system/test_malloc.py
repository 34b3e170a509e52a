"""Freed memory is kept during training, and returned to the system afterwards."""

from __future__ import annotations

import platform

import pytest
import torch

from peewit.system import malloc as allocator

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is configured"
)


def page_faults(steps: int, megabytes: int = 24) -> int:
    """Count the page faults while tensors are allocated and freed in steps."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        # three of 24 MB: together they exceed the most that glibc keeps by itself
        first, second, third = (torch.ones(megabytes << 18) for _ in range(3))
        del first, second, third
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@glibc
@pytest.mark.parametrize("megabytes", [24, 40])  # below and above the size that glibc always maps
def test_freed_memory_is_kept_within_the_context_only(megabytes: int) -> None:
    with allocator.freed_memory_kept():
        page_faults(3, megabytes)
        kept = page_faults(10, megabytes)
    afterwards = page_faults(1, megabytes)
    assert afterwards > 0
    assert kept < 5 * afterwards


@glibc
def test_the_settings_of_the_user_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator._glibc() is not None
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert allocator._glibc() is None


def test_nothing_is_done_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with allocator.freed_memory_kept():
        assert allocator._glibc() is None
