"""Knows whether descriptors are left for connections, and logs once when that changes.

The gateway then pauses accepting (``listeners.py``). Files of the spool and workers need descriptors, too, so
the last ``KEPT_FREE`` are not for connections.
"""

import asyncio
import logging
import os
from typing import Any

from vipsrv.workers.descriptor_reserve import is_used_up

_ACCEPT_FAILED = "socket.accept() out of system resource"
"""How asyncio's selector loop names the lack of descriptors, memory or buffers."""

KEPT_FREE = 8
"""With fewer descriptors left, no connections are accepted."""

ENOUGH_FREE = 16
"""With so many they are accepted again: more than ``KEPT_FREE``, so that it does not change all the time."""

_log = logging.getLogger(__name__)


class DescriptorWatch:
    """Knows whether enough descriptors could be opened at the last ``check``."""

    def __init__(self) -> None:
        self.exhausted = False
        self._other_error: int | None = None  # the last one that was logged

    def check(self) -> None:
        """Open some descriptors and close them, in microseconds; call this several times a second."""
        opened: list[int] = []
        try:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            while len(opened) < (ENOUGH_FREE if self.exhausted else KEPT_FREE):
                opened.append(os.dup(opened[0]))
        except OSError as error:
            if is_used_up(error):
                self._note(exhausted=True)
        else:
            self._note(exhausted=False)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of the event loop: those of accepting are logged once, all others as usual."""
        error = context.get("exception")
        if context.get("message") != _ACCEPT_FAILED or not isinstance(error, OSError):
            loop.default_exception_handler(context)
        elif is_used_up(error):
            self._note(exhausted=True)
        elif error.errno != self._other_error:
            self._other_error = error.errno
            _log.error("a connection could not be accepted: %s; it is tried again", error.strerror or error)

    def _note(self, *, exhausted: bool) -> None:
        if exhausted and not self.exhausted:
            _log.error(
                "no file descriptor is left for connections: new ones have to wait; "
                "raise the limit of open files or lower --connections"
            )
        elif self.exhausted and not exhausted:
            _log.info("there are file descriptors for connections again")
        self.exhausted = exhausted
