"""Restrict a worker before it decodes the first image, because an image may take over its decoder.

The order matters, because each step takes away what earlier steps need:

1. ``ignore_stop_signals`` and ``die_with_parent``, before anything slow;
2. all imports, the set-up of libvips and a trial run (in ``runner.py``);
3. ``confine``, which cannot be undone, right before the worker sends READY.

``prctl`` exists on Linux only. Elsewhere (macOS) a worker notices the end of its parent only by its closed
socket, and it could gain privileges by running a set-user-id program; everything else is the same.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def ignore_stop_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP: terminals and service managers send them to all processes, and the
    gateway decides when a worker ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent (on Linux: the parent's thread) ends.

    ``parent`` is the process id of the parent. Raises ``ProcessLookupError`` if it ended before this call.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent process {parent} has ended")


def confine(channel: int) -> None:
    """Give up everything except the descriptor ``channel``. Further restrictions belong here."""
    gain_no_privileges()
    keep_only(channel)


def keep_only(descriptor: int) -> None:
    """Close all descriptors except ``descriptor``; the three standard streams become ``/dev/null``.

    Raises ``ValueError`` if ``descriptor`` is a standard stream.
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
    """Keep this process, and any program that it runs, from gaining privileges (``no_new_privs``)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    unsigned = ctypes.c_ulong
    if libc.prctl(option, unsigned(value), unsigned(0), unsigned(0), unsigned(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
