"""Start a worker process (command line, environment, descriptors), and explain its exit status."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.shared_memory import SharedMemory

_KEPT_MEMORY = 64 << 20
"""Maximum bytes of freed memory that a worker's malloc keeps for the next image."""

_NEEDED = re.compile(
    r"(PATH|HOME|LANG|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_.*|PYTHON.*|VIRTUAL_ENV|VIPS_.*"
    r"|MALLOC_CONF|MIMALLOC_.*|TCMALLOC_.*)$"
)
"""The environment variables that a worker gets. LD_PRELOAD and the last three choose and configure another
malloc: an operator who preloads one does it for the workers. glibc's own settings are chosen below."""

Command = Callable[[list[int], WorkerConfig], list[str]]
"""Makes the command line from the inherited descriptors (the socket's, then the shared memory's if there is
any) and the configuration.
"""


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that was started, and what it shares with the gateway."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    shared: SharedMemory | None


def worker_command(inherited: list[int], config: WorkerConfig) -> list[str]:
    """Return the command line of a worker."""
    socket_fd, *shared_fd = map(str, inherited)
    return [
        sys.executable,
        "-m",
        "vipsrv.workers.child",
        "--socket",
        socket_fd,
        "--config",
        json.dumps({**asdict(config), "parent": os.getpid()}),
        *(["--shared", *shared_fd] if shared_fd else []),
    ]


def launch(config: WorkerConfig, command: Command = worker_command) -> Launched:
    """Start a worker. Raises ``OSError``, with nothing left open, if the system has no room for one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    shared: SharedMemory | None = None
    try:
        shared = SharedMemory.create()
        inherited = [theirs.fileno()] + ([shared.descriptor] if shared is not None else [])
        process = subprocess.Popen(
            command(inherited, config),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[*inherited, *(one.descriptor for one in config.watermarks)],
            env=worker_environment(),
        )
    except OSError:
        ours.close()
        if shared is not None:
            shared.close()
        raise
    finally:
        theirs.close()
        if shared is not None:
            shared.close_descriptor()
    return Launched(process, ours, shared)


def worker_environment() -> dict[str, str]:
    """Return the variables that a worker needs. Others may hold secrets that no decoder should see."""
    needed = {name: value for name, value in os.environ.items() if _NEEDED.match(name)}
    # When all workers are busy, one thread per job gives the best throughput. Two malloc arenas are enough
    # for that, and freed memory is not spread over many. With glibc's own thresholds, the memory of each
    # strip would go back to the kernel and be faulted in, zeroed, for the next strip.
    # PYTHONSAFEPATH keeps Python from importing a file in the current folder in place of a module.
    return {
        **needed,
        "VIPS_CONCURRENCY": "1",
        # libvips writes a warning for what its decoders lack, which each worker finds out when it starts.
        "VIPS_WARNING": "0",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_MEMORY),
        "MALLOC_MMAP_THRESHOLD_": str(_KEPT_MEMORY // 2),
        # numpy's library for matrices, which no job uses, would start threads when it is imported.
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        # A libvips that was built with Orc makes machine code at run time, and a confined worker may not.
        "ORC_CODE": "backup",
    }


def exit_reason(status: int) -> str:
    """Complete the sentence "worker 7 ended: …" from an exit status as ``subprocess`` gives it."""
    if status >= 0:
        return f"it exited with code {status}"
    name = f"signal {-status}"
    with suppress(ValueError):
        name = signal.Signals(-status).name
    if -status == signal.SIGSYS:
        return f"it was killed by {name} (it made a system call that only an attack makes)"
    if -status == signal.SIGKILL:
        return f"it was killed by {name} (by hand, or by the kernel because memory ran out)"
    return f"it was killed by {name}"
