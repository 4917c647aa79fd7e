"""A process that has no descriptor left."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def descriptors_used_up(*, spare: int = 0) -> Iterator[None]:
    """Within, only ``spare`` more descriptors can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    # Some more than needed, because threads of earlier tests may open files meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64 + spare, before[1]))
    filler: list[int] = []
    try:
        while True:
            try:
                filler.append(os.dup(0))
            except OSError:
                break
        for _ in range(spare):
            os.close(filler.pop())
        yield
    finally:
        for descriptor in filler:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
