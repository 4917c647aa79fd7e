"""The number of cores that this process may use."""

import math
import os

from vipsrv.server.cgroups import Cgroups


def available_cpus(cgroups: Cgroups | None = None) -> int:
    """The cores that the CPU affinity and every cgroup above this process allow, at least 1."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # only Linux has it, and a system call filter may refuse it
        cpus = os.cpu_count() or 1
    quota = (cgroups or Cgroups()).cpu_quota()
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))
