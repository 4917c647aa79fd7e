"""From a socket to a file within the kernel: the bytes are copied once, and Python never sees them.

``splice(2)`` wants a pipe on one side, so that there is one between, for each thread that does this.
"""

import fcntl
import os
import select
import threading
import time
from dataclasses import dataclass

MOST_AT_ONCE = 32 * 1024 * 1024
"""Bytes: after them the owner of the socket is told, for its clocks and its own bookkeeping."""

_PIPE_SIZE = 1024 * 1024
"""Bytes: what Linux allows everybody (/proc/sys/fs/pipe-max-size). Of a smaller one the sender waits more."""

_MOST_SECONDS = 0.25
"""For the same end; and the thread has other files to write."""

_PATIENCE_MS = 2
"""How long a fast sender may leave the socket empty."""

_EARNS_PATIENCE = 64 * 1024
"""Bytes that must have come since the last wait: for a slow sender no thread waits."""

_threads = threading.local()


@dataclass(frozen=True, slots=True)
class Moved:
    """``size`` bytes were taken from the socket; with an ``error`` not all of them are in the file."""

    size: int = 0
    error: OSError | None = None


def available() -> bool:
    """Whether the system can: Linux."""
    return hasattr(os, "splice")


def move(source: int, target: int, offset: int, size: int) -> Moved:
    """Move up to ``size`` bytes from the stream socket ``source``, which does not block, to ``offset`` of the
    file ``target``; less when the socket is empty, ended or broken, of which whoever reads it next learns.
    """
    size = min(size, MOST_AT_ONCE)
    poll = select.poll()
    poll.register(source, select.POLLIN)
    taken = waited_at = 0
    ends_at = time.monotonic() + _MOST_SECONDS
    try:
        reading, writing = _pipe()
    except OSError:  # no descriptor is left: it is read as ever
        return Moved()
    try:
        while taken < size:
            try:
                piped = os.splice(source, writing, min(_PIPE_SIZE, size - taken), flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if taken < waited_at + _EARNS_PATIENCE or not poll.poll(_PATIENCE_MS):
                    break
                waited_at = taken
                continue
            except OSError:  # of the connection; nothing was taken
                break
            if not piped:
                break
            taken += piped
            while piped:
                written = os.splice(reading, target, piped, offset_dst=offset)
                offset += written
                piped -= written
            if time.monotonic() > ends_at:
                break
    except OSError as error:
        _drop_pipe()  # for something may be left in it
        return Moved(taken, error)
    return Moved(taken)


def _pipe() -> tuple[int, int]:
    ends: tuple[int, int] | None = getattr(_threads, "pipe", None)
    if ends is None:
        ends = _threads.pipe = os.pipe()
        try:
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except PermissionError:  # the user has many pipes already; smaller ones work, too
            return ends
    return ends


def _drop_pipe() -> None:
    ends = getattr(_threads, "pipe", None)
    _threads.pipe = None
    for end in ends or ():
        os.close(end)
