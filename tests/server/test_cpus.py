import os
from pathlib import Path

import pytest

from vipsrv.server.cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def cgroup(root: Path, own: str, files: dict[str, str]) -> int:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "own").write_text(own)
    return available_cpus(root, root / "own")


def test_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, tmp_path / "none") == 8


def test_no_quota(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/a\n", {"a/cpu.max": "max 100000\n"}) == 8


@pytest.mark.parametrize(
    ("quota", "cpus"), [("200000", 2), ("150000", 2), ("50000", 1), ("100", 1), ("9900000", 8)]
)
def test_a_quota_is_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    assert cgroup(tmp_path, "0::/a\n", {"a/cpu.max": f"{quota} 100000\n"}) == cpus


def test_the_smallest_quota_of_all_parents_counts(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "500000 100000"}
    assert cgroup(tmp_path, "0::/a/b\n", files) == 3


def test_cgroups_of_version_1(tmp_path: Path) -> None:
    files = {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}
    assert cgroup(tmp_path, "4:cpu,cpuacct:/a\n3:memory:/b\n", files) == 3
    files["cpu/a/cpu.cfs_quota_us"] = "-1"
    assert cgroup(tmp_path, "4:cpu,cpuacct:/a\n", files) == 8
