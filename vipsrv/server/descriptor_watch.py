"""Logs once when the process has used up its file descriptors, and once when it has some again.

Nothing else has to happen: a connection that cannot be accepted waits in the kernel (asyncio tries again
after a second) or is closed (uvloop). But asyncio reports each attempt with a traceback, and uvloop reports
nothing.
"""

import asyncio
import errno
import logging
import os
from typing import Any

_ACCEPT_FAILED = "socket.accept() out of system resource"
"""How asyncio's selector loop names the lack of descriptors, memory or buffers."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)

_log = logging.getLogger(__name__)


class DescriptorWatch:
    """Knows whether a descriptor could be opened at the last ``check``."""

    def __init__(self) -> None:
        self.exhausted = False

    def check(self) -> None:
        """Open a descriptor and close it; call this several times a second."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._note(exhausted=True)
        else:
            self._note(exhausted=False)

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of the event loop: those of accepting are logged once, all others as usual."""
        if context.get("message") == _ACCEPT_FAILED:
            self._note(exhausted=True)
        else:
            loop.default_exception_handler(context)

    def _note(self, *, exhausted: bool) -> None:
        if exhausted and not self.exhausted:
            _log.error(
                "no file descriptor is left: new connections have to wait or are closed; "
                "raise the limit of open files or lower --connections"
            )
        elif self.exhausted and not exhausted:
            _log.info("there are file descriptors again")
        self.exhausted = exhausted
