"""Tie a worker's life to the gateway's: only the gateway decides when a worker ends.

``prctl`` exists on Linux only. Elsewhere (macOS) a worker notices the end of its parent only by its closed
socket.
"""

import os
import signal
import sys

from vipsrv.workers.process_control import prctl

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ignore_stop_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP: terminals and service managers send them to all processes, and the
    gateway decides when a worker ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent (on Linux: the parent's thread) ends.

    ``parent`` is the process id of the parent. A change of the user id undoes this, so call it again after
    one. Raises ``ProcessLookupError`` if the parent ended before this call.
    """
    if sys.platform == "linux":
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent process {parent} has ended")
