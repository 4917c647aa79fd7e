"""How busy the cores are, all processes together: whether something else ran beside a measurement."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE = slice(3, 5)  # idle and iowait
_STOLEN = 7
_COUNTED = 8  # what follows, guests' time, is in the first two as well


@dataclass(frozen=True, slots=True)
class Cores:
    """Seconds of the cores that this process may use, since the machine was started (proc(5), /proc/stat)."""

    total: float
    busy: float
    stolen: float
    """Given by the hypervisor to other machines."""

    @classmethod
    def now(cls, stat: Path = Path("/proc/stat"), cores: set[int] | None = None) -> Self:
        """As they are, in steps of a hundredth of a second."""
        allowed = os.sched_getaffinity(0) if cores is None else cores
        names = {f"cpu{number}" for number in allowed}
        total = busy = stolen = 0.0
        for line in stat.read_text().splitlines():
            name, *fields = line.split()
            if name in names:
                ticks = [int(field) / _TICKS_PER_SECOND for field in fields[:_COUNTED]]
                total += sum(ticks)
                stolen += ticks[_STOLEN]
                busy += sum(ticks) - sum(ticks[_IDLE]) - ticks[_STOLEN]
        return cls(total, busy, stolen)

    def __sub__(self, before: "Cores") -> "Cores":
        return Cores(self.total - before.total, self.busy - before.busy, self.stolen - before.stolen)
