"""Logs once when the process has used up its file descriptors, and once when it has some again.

Nothing else has to happen: a connection that cannot be accepted waits in the kernel (asyncio tries again
after a second) or is closed (uvloop). But asyncio reports each attempt with a traceback, and uvloop reports
nothing.
"""

import asyncio
import logging
import os
from typing import Any

from vipsrv.workers.descriptor_reserve import is_used_up

_ACCEPT_FAILED = "socket.accept() out of system resource"
"""How asyncio's selector loop names the lack of descriptors, memory or buffers."""

_log = logging.getLogger(__name__)


class DescriptorWatch:
    """Knows whether a descriptor could be opened at the last ``check``."""

    def __init__(self) -> None:
        self.exhausted = False
        self._other_error: int | None = None  # the last one that was logged

    def check(self) -> None:
        """Open a descriptor and close it; call this several times a second."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if is_used_up(error):
                self._note(exhausted=True)
        else:
            self._note(exhausted=False)

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
                "no file descriptor is left: new connections have to wait or are closed; "
                "raise the limit of open files or lower --connections"
            )
        elif self.exhausted and not exhausted:
            _log.info("there are file descriptors again")
        self.exhausted = exhausted
