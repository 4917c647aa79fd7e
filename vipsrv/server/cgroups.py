"""The limits that cgroups, version 2 or 1, set to this process: CPU, memory, number of tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_MEMORY_LIMIT = 1 << 60
"""Version 1 has no word for "no limit": it gives the largest number of pages."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The cgroups of this process, its own and those above, each of which may set a limit."""

    root: Path = Path("/sys/fs/cgroup")
    own: Path = Path("/proc/self/cgroup")

    def cpu_quota(self) -> float | None:
        """The smallest CPU quota, in cores, or ``None``."""
        return min((quota for folder in self._folders("cpu") if (quota := _cpu_quota(folder))), default=None)

    def memory_limit(self) -> int | None:
        """The smallest limit of memory, in bytes, or ``None``."""
        limits = [
            _number(folder / name)
            for folder in self._folders("memory")
            for name in ("memory.max", "memory.limit_in_bytes")
        ]
        return min((limit for limit in limits if limit and limit < _NO_MEMORY_LIMIT), default=None)

    def tasks_limit(self) -> int | None:
        """The smallest limit of processes and threads together, or ``None``."""
        limits = [_number(folder / "pids.max") for folder in self._folders("pids")]
        return min((limit for limit in limits if limit), default=None)

    def _folders(self, controller: str) -> Iterator[Path]:
        """The folders that may limit what ``controller`` controls."""
        for line in _read(self.own).splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                bases = [self.root]
            elif controller in controllers.split(","):
                bases = self._mounts(controller)
            else:
                continue
            for base in bases:
                folder = base / path.lstrip("/")
                yield from (one for one in (folder, *folder.parents) if one.is_relative_to(base))

    def _mounts(self, controller: str) -> list[Path]:
        """Where version 1 is mounted: as ``cpu``, or as ``cpu,cpuacct`` with or without a link ``cpu``."""
        try:
            folders = list(self.root.iterdir())
        except OSError:
            return []
        return [folder for folder in folders if controller in folder.name.split(",")]


def _cpu_quota(folder: Path) -> float | None:
    version_2 = _read(folder / "cpu.max").split()
    if version_2:
        return None if version_2[0] == "max" else int(version_2[0]) / int(version_2[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.removeprefix("-").isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
