"""The CPU's name, and quotas of cgroups of both versions, from files as Linux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from peewit.system import cpu
from peewit.training import environment


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder in place of /sys/fs/cgroup; this process belongs to no group."""
    monkeypatch.setattr(cpu, "CGROUPS", tmp_path)
    monkeypatch.setattr(cpu, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """Write ``cpu_max`` and so on as Linux does: cpu.max, with a line break at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name.removeprefix('cpu_')}").write_text(text + "\n")


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("max 100000", 64),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 64),
        ("100000 0", 64),
        ("rubbish", 64),
        ("", 64),
    ],
)
def test_a_quota_of_version_2_is_kept(groups: Path, text: str, threads: int) -> None:
    assert cpu.within_limit(64) == 64  # no such file
    write(groups, cpu_max=text)
    assert cpu.within_limit(64) == threads


@pytest.mark.parametrize(
    ("quota", "period", "threads"),
    [("-1", "100000", 64), ("300000", "100000", 3), ("40000", "100000", 1), ("", "100000", 64)],
)
def test_a_quota_of_version_1_is_kept(groups: Path, quota: str, period: str, threads: int) -> None:
    write(groups / "cpu", cfs_quota_us=quota, cfs_period_us=period)
    assert cpu.within_limit(64) == threads


def test_a_quota_of_version_1_without_its_period_is_ignored(groups: Path) -> None:
    write(groups / "cpu", cfs_quota_us="100000")
    assert cpu.within_limit(64) == 64


def test_the_smallest_quota_of_nested_groups_of_version_2_counts(groups: Path) -> None:
    (groups / "membership").write_text("0::/user.slice/job.scope\n")
    write(groups / "user.slice" / "job.scope", cpu_max="800000 100000")
    assert cpu.within_limit(64) == 8
    write(groups / "user.slice", cpu_max="300000 100000")
    assert cpu.within_limit(64) == 3
    write(groups / "user.slice" / "job.scope", cpu_max="200000 100000")
    assert cpu.within_limit(64) == 2
    write(groups / "system.slice", cpu_max="100000 100000")  # not around this process
    assert cpu.within_limit(64) == 2


def test_nested_groups_of_version_1_are_found_by_their_controllers(groups: Path) -> None:
    (groups / "membership").write_text(
        "9:name=systemd:/elsewhere\n3:cpuset:/elsewhere\n2:cpu,cpuacct:/docker/a:b\n0::/\n"
    )
    write(groups / "cpu" / "elsewhere", cfs_quota_us="100000", cfs_period_us="100000")
    write(groups / "cpuset" / "elsewhere", cfs_quota_us="100000", cfs_period_us="100000")
    write(groups / "cpu,cpuacct" / "docker", cfs_quota_us="400000", cfs_period_us="100000")
    assert cpu.within_limit(64) == 4
    write(groups / "cpu,cpuacct" / "docker/a:b", cfs_quota_us="200000", cfs_period_us="100000")
    assert cpu.within_limit(64) == 2


@pytest.mark.parametrize("path", ["/docker/0123", "/../0123", "/../../sys"])
def test_a_container_finds_its_group_at_the_root(groups: Path, path: str) -> None:
    (groups / "membership").write_text(f"4:cpu,cpuacct:{path}\n0::{path}\n")
    write(groups / "cpu,cpuacct", cfs_quota_us="200000", cfs_period_us="100000")
    assert cpu.within_limit(64) == 2


def test_version_2_beside_version_1_has_a_folder_of_its_own(groups: Path) -> None:
    (groups / "membership").write_text("1:cpuset:/\n0::/job\nrubbish\n\n")
    write(groups / "unified" / "job", cpu_max="500000 100000")
    assert cpu.within_limit(64) == 5


def test_the_default_number_of_threads_keeps_the_quota(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    write(groups / "cpu", cfs_quota_us="300000", cfs_period_us="100000")
    assert environment.usable_threads() == 3


def test_the_processor_has_a_name_where_linux_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "CPU_INFO", info)
    assert cpu.processor_name()
    info.write_text("processor\t: 0\nmodel name\t: Fast One: 3 GHz\n")
    assert cpu.processor_name() == "Fast One: 3 GHz"
