"""How a worker process is started, and what its end says: command line, environment, exit status."""

import json
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any

_KEPT_MEMORY = 32 << 20
"""Bytes that a worker's malloc keeps at most when a picture is done, instead of giving them back."""

_NEEDED = re.compile(
    r"(PATH|HOME|LANG|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|DYLD_.*|PYTHON.*|VIRTUAL_ENV|VIPS_.*)$"
)
"""The variables that a worker gets."""


def worker_command(inherited: list[int], config: dict[str, Any]) -> list[str]:
    """``inherited`` are the descriptors of the socket and, where there is any, of the shared memory;
    ``config`` is what the pool tells every worker.
    """
    socket_fd, *shared_fd = map(str, inherited)
    return [
        sys.executable,
        "-m",
        "vipsrv.workers.child",
        "--socket",
        socket_fd,
        "--config",
        json.dumps({**config, "parent": os.getpid()}),
        *(["--shared", *shared_fd] if shared_fd else []),
    ]


def worker_environment() -> dict[str, str]:
    """What a worker needs of the environment and no more: it may hold secrets, and a decoder turn hostile."""
    needed = {name: value for name, value in os.environ.items() if _NEEDED.match(name)}
    # One thread a job gives the best throughput when all workers are busy; two malloc arenas are enough
    # for that and keep what is freed from being spread over many.
    # glibc would give the strips of one picture back to the kernel and fault them in, zeroed, for the next.
    # The safe path keeps a file of the current folder from being imported in place of a module.
    return {
        **needed,
        "VIPS_CONCURRENCY": "1",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
        "MALLOC_MMAP_THRESHOLD_": str(_KEPT_MEMORY // 4),
        "PYTHONSAFEPATH": "1",
    }


def exit_reason(status: int) -> str:
    """What completes the sentence "worker 7 ended: …", of an exit status as ``subprocess`` gives it."""
    if status >= 0:
        return f"it exited with code {status}"
    name = f"signal {-status}"
    with suppress(ValueError):
        name = signal.Signals(-status).name
    if -status == signal.SIGKILL:
        return f"it was killed by {name} (by hand, or by the kernel for want of memory)"
    return f"it was killed by {name}"
