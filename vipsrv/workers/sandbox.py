"""What a worker gives up before it meets the first picture: its decoder may turn out to be an attacker's.

The order matters, for each step takes away what the ones before needed:

1. ``ignore_stop_signals`` and ``die_with_parent``, before anything slow;
2. all imports, libvips' set-up and a trial run (in ``child.py``);
3. ``confine``, once and for good, right before the worker says that it is ready.

``prctl`` is Linux'. Where there is none (macOS) a worker notices its parent's end by its closed socket only,
and may gain privileges by running a set-user-id program; the rest is the same everywhere.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def ignore_stop_signals() -> None:
    """Leave SIGINT and SIGTERM to the gateway: terminals and service managers send them to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Be killed by the kernel when the process (on Linux: the thread) that started this one ends.

    ``parent`` is that process's id. Raises ``ProcessLookupError`` if it ended before this call.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent process {parent} is gone")


def confine(channel: int) -> None:
    """Give up all but the descriptor ``channel``; the list that every further restriction joins."""
    gain_no_privileges()
    keep_only(channel)


def keep_only(descriptor: int) -> None:
    """Close every other descriptor; standard input, output and error become ``/dev/null``.

    Raises ``ValueError`` if ``descriptor`` is one of those three.
    """
    standard = 3
    if descriptor < standard:
        raise ValueError(f"the channel is descriptor {descriptor}, one of the standard streams")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(standard):
        os.dup2(null, stream)
    os.closerange(standard, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def gain_no_privileges() -> None:
    """From now on no program that this process runs has more rights than it (``no_new_privs``)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    unsigned = ctypes.c_ulong
    if libc.prctl(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
