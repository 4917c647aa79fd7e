"""``vipsrv reload``: make a running server read its settings again, and say how that went.

Exit codes: 0 the server has taken the settings over, 1 it has refused them or there is none, 2 the command
line is invalid.
"""

import os
import signal
import time
from pathlib import Path

from vipsrv.server.pid_file import LastReload, NoServer, find_server, read_last_reload

_PAUSE = 0.02
"""Seconds between two looks at how it went."""


class NoAnswer(NoServer):
    """The server did not say how the reload went."""


def reload_server(pid_file: Path, timeout: float) -> LastReload:
    """Ask the server with this pid file to reload, and return how that went. Raises ``NoServer``."""
    pid = find_server(pid_file)
    asked = time.monotonic()
    try:
        # Not SIGHUP, which stops a server that has a terminal.
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        raise NoServer("the server has just ended") from None
    except PermissionError:
        raise NoServer(f"the server (process {pid}) belongs to another user") from None
    while (last := read_last_reload(pid_file)) is None or last.began < asked:
        if time.monotonic() > asked + timeout:
            raise NoAnswer(f"the server (process {pid}) did not reload within {timeout:g} s; see its log")
        time.sleep(_PAUSE)
        find_server(pid_file)
    return last
