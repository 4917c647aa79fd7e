"""Moves bytes from a socket to a file inside the kernel: one copy, and none through Python's memory.

``splice(2)`` needs a pipe on one side, so a ``Splicer`` keeps pipes to put in between.
"""

import fcntl
import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass

MOST_AT_ONCE = 32 * 1024 * 1024
"""Maximum bytes that one call moves. Then the socket's owner runs, for its timeouts and accounting."""

_PIPE_SIZE = 1024 * 1024
"""Bytes: the most that Linux allows every user (/proc/sys/fs/pipe-max-size). A smaller pipe makes the sender
wait more often."""

_MOST_SECONDS = 0.25
"""Maximum seconds of one call: for the same reason, and because its thread has other files to write."""

_PATIENCE_MS = 2
"""How long to wait for more bytes from a fast sender whose socket is empty."""

_EARNS_PATIENCE = 64 * 1024
"""Bytes that must have arrived since the last wait; a thread does not wait for slower senders."""


@dataclass(frozen=True, slots=True)
class Moved:
    """``size`` bytes were taken from the socket; if there was an ``error``, not all are in the file."""

    size: int = 0
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class _Pipe:
    read_end: int
    write_end: int

    @classmethod
    def create(cls) -> "_Pipe":
        """Open a pipe. Raises ``OSError`` if no descriptor is left."""
        pipe = cls(*os.pipe())
        # Refused if this user has many pipes already, or without memory; a smaller one works as well.
        with suppress(OSError):
            fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return pipe

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


def available() -> bool:
    """Whether this system has ``splice(2)``, that is, whether it is Linux."""
    return hasattr(os, "splice")


class Splicer:
    """Moves bytes with the pipes that it owns, one for each thread that is in ``move`` at the same time."""

    def __init__(self) -> None:
        self._idle_pipes: list[_Pipe] = []  # shared by the threads: append and pop are atomic

    def move(self, source: int, target: int, offset: int, size: int) -> Moved:
        """Move up to ``size`` bytes from ``source``, a non-blocking stream socket, to ``offset`` of the file
        ``target``.

        Moves less if the socket is empty, at its end or broken; the next read of the socket finds out which.
        """
        try:
            pipe = self._idle_pipe() or _Pipe.create()
        except OSError:  # no descriptor is left, so the socket's owner reads it the ordinary way
            return Moved()
        moved = _move(pipe, source, target, offset, min(size, MOST_AT_ONCE))
        if moved.error is None:
            self._idle_pipes.append(pipe)
        else:
            pipe.close()  # bytes may be left in it
        return moved

    def close(self) -> None:
        """Close all pipes; no thread may be in ``move``."""
        while pipe := self._idle_pipe():
            pipe.close()

    def _idle_pipe(self) -> _Pipe | None:
        try:
            return self._idle_pipes.pop()
        except IndexError:
            return None


def _move(pipe: _Pipe, source: int, target: int, offset: int, size: int) -> Moved:
    poll = select.poll()
    poll.register(source, select.POLLIN)
    taken = waited_at = 0
    ends_at = time.monotonic() + _MOST_SECONDS
    try:
        while taken < size:
            try:
                piped = os.splice(
                    source, pipe.write_end, min(_PIPE_SIZE, size - taken), flags=os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                if taken < waited_at + _EARNS_PATIENCE or not poll.poll(_PATIENCE_MS):
                    break
                waited_at = taken
                continue
            except OSError:  # an error of the connection; nothing was taken
                break
            if not piped:
                break
            taken += piped
            while piped:
                written = os.splice(pipe.read_end, target, piped, offset_dst=offset)
                offset += written
                piped -= written
            if time.monotonic() > ends_at:
                break
    except OSError as error:
        return Moved(taken, error)
    return Moved(taken)
