import os
from pathlib import Path

import pytest

from vipsrv.server.cgroups import Cgroups
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
    return available_cpus(Cgroups(root, root / "own"))


def test_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cpus(Cgroups(tmp_path, tmp_path / "none")) == 8


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


def test_version_1_that_is_mounted_with_another_controller_and_has_no_link(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
    assert cgroup(tmp_path, "4:cpu,cpuacct:/a\n3:memory:/b\n", files) == 3


def test_an_affinity_that_may_not_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", refused)
    assert available_cpus(Cgroups(tmp_path, tmp_path / "none")) == (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("own", "memory", "tasks"),
    [
        ("0::/a/b\n", "memory.max", "pids.max"),
        ("3:memory:/a/b\n2:pids:/a/b\n", "memory.limit_in_bytes", "pids.max"),
    ],
    ids=["version 2", "version 1"],
)
def test_the_smallest_limits_of_memory_and_tasks(tmp_path: Path, own: str, memory: str, tasks: str) -> None:
    folders = ("", "") if own.startswith("0") else ("memory/", "pids/")
    files = {
        f"{folders[0]}a/b/{memory}": "9223372036854771712\n" if folders[0] else "max\n",
        f"{folders[0]}a/{memory}": "1000\n",
        f"{folders[0]}{memory}": "2000\n",
        f"{folders[1]}a/{tasks}": "max\n",
        f"{folders[1]}{tasks}": "11\n",
    }
    cgroup(tmp_path, own, files)
    cgroups = Cgroups(tmp_path, tmp_path / "own")
    assert (cgroups.memory_limit(), cgroups.tasks_limit()) == (1000, 11)
