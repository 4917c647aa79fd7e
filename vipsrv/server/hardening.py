"""Close the gateway's process to its workers, before any of them starts.

A worker that an image has taken over may run as the same user. The kernel then keeps it out of the gateway's
memory and descriptors, and gives the gateway whatever a worker leaves behind. What a process may still learn
is not there: variables of the environment that no part of the server reads may hold secrets of the operator.
"""

import ctypes
import logging
import os
import re
from collections.abc import Callable

from vipsrv.workers.launch import worker_environment
from vipsrv.workers.process_control import adopt_orphans, forbid_inspection

_READ_LATER = re.compile(r"(VIPSRV_(?!TOKEN$)|NOTIFY_|LISTEN_|WATCHDOG_)")
"""Settings, and what systemd tells a service; no variable of these holds a secret. ``VIPSRV_TOKEN`` is a
client's, and may have come along."""

_OTEL = "OTEL_"
"""Where traces and metrics are exported. ``OTEL_EXPORTER_OTLP_HEADERS`` may hold a secret, which is forgotten
when it has been read."""

_log = logging.getLogger(__name__)


def harden(*, exports: bool = False) -> None:
    """Close this process to others of the same user. What the system refuses is logged.

    With ``exports`` it keeps the variables that say where to.
    Call it once, when the settings have been read and before the first worker starts.
    """
    steps: tuple[Callable[[], None], ...] = (forbid_inspection, adopt_orphans)
    for step in steps:
        try:
            step()
        except OSError as error:
            _log.warning("the server is less protected from its workers: %s", error)
    kept = worker_environment().keys()
    for name in list(os.environ):
        is_read = name in kept or _READ_LATER.match(name) or (exports and name.startswith(_OTEL))
        if not is_read:
            forget_variable(name)


def forget_variable(name: str) -> None:
    """Remove a variable from the environment, and overwrite its value where /proc/PID/environ shows it.

    The memory of Python's own copy is only freed.
    """
    get = ctypes.CDLL(None).getenv
    get.restype = ctypes.c_void_p
    value = get(os.fsencode(name))
    if value:
        ctypes.memset(value, 0, len(ctypes.string_at(value)))
    os.environ.pop(name, None)
