"""The number of cores that this process may use."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup_root: Path = _CGROUP, own_cgroups: Path = Path("/proc/self/cgroup")) -> int:
    """The cores that the CPU affinity and every cgroup above this process allow, at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        cpus = os.cpu_count() or 1
    quota = _cgroup_quota(cgroup_root, own_cgroups)
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))


def _cgroup_quota(root: Path, own_cgroups: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroups (version 2, else 1), or ``None``."""
    quotas = []
    for line in _read(own_cgroups).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = root
        elif "cpu" in controllers.split(","):
            base = root / "cpu"
        else:
            continue
        folder = base / path.lstrip("/")
        quotas += [_quota(parent) for parent in (folder, *folder.parents) if parent.is_relative_to(base)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path) -> float | None:
    version_2 = _read(folder / "cpu.max").split()
    if version_2:
        return None if version_2[0] == "max" else int(version_2[0]) / int(version_2[1])
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
