"""How busy the cores are, all processes together: whether something else ran beside a measurement."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import psutil


@dataclass(frozen=True, slots=True)
class Cores:
    """Seconds of the cores that this process may use, since the machine was started."""

    total: float
    busy: float
    stolen: float
    """Given by the hypervisor to other machines."""

    @classmethod
    def now(cls, cores: Collection[int] | None = None) -> Self:
        """Read the times of these cores, by default of those of this process, in hundredths of a second."""
        allowed = os.sched_getaffinity(0) if cores is None else cores
        total = busy = stolen = 0.0
        for number, times in enumerate(psutil.cpu_times(percpu=True)):
            if number in allowed:
                # The time of guests is left out: it is part of ``user`` and ``nice``.
                used = times.user + times.nice + times.system + times.irq + times.softirq
                busy += used
                stolen += times.steal
                total += used + times.steal + times.idle + times.iowait
        return cls(total, busy, stolen)

    def __sub__(self, before: "Cores") -> "Cores":
        return Cores(self.total - before.total, self.busy - before.busy, self.stolen - before.stolen)
