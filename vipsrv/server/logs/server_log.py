"""The log of a server process: its target, what feeds it, and what a reload changes."""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vipsrv.server.logs.access_log import AccessLog
from vipsrv.server.logs.log_file import LogFile
from vipsrv.server.logs.log_queue import LogHandler, LogQueue, LogTarget
from vipsrv.server.logs.rendering import renderer
from vipsrv.server.settings import ServerSettings
from vipsrv.server.user import ids_of

STANDARD_ERROR = 2


class ServerLog:
    """Writes what is logged from a thread, within a ``with`` block: to the log file of the settings, or to
    standard error. Raises ``SettingsError`` if the file cannot be opened.

    ``requests`` gets the lines of requests, and the root logger of Python's ``logging`` all others. If
    several gateways write to the same target, each line has the number of its ``gateway``.
    """

    def __init__(
        self, settings: ServerSettings, *, standard_error: int = STANDARD_ERROR, gateway: int | None = None
    ) -> None:
        self._gateway = gateway
        self._standard_error = standard_error
        self._queue = LogQueue(self._open(settings))
        self._handler = LogHandler(self._queue)
        self._level = settings.log_level.number
        self._level_before = logging.NOTSET
        self.requests = AccessLog(self._queue, settings)

    def prepare_reload(self, settings: ServerSettings) -> Callable[[], None]:
        """Open the log file again and return the function that changes over to it and to the settings.

        Raises ``SettingsError`` if the file cannot be opened; then everything stays as it is.
        """
        target = self._open(settings)

        def take_over() -> None:
            self._queue.switch(target)
            logging.getLogger().setLevel(settings.log_level.number)
            self.requests.configure(settings)

        return take_over

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level_before = root.level
        root.addHandler(self._handler)
        root.setLevel(self._level)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level_before)
        self._handler.close()
        self._queue.close()

    def _open(self, settings: ServerSettings) -> LogTarget:
        owner = None if settings.user is None else ids_of(settings.user)
        file = None if settings.log_file is None else LogFile(settings.log_file, owner)
        descriptor = self._standard_error if file is None else file.descriptor
        return LogTarget(descriptor, renderer(settings.log_format, descriptor, self._gateway), file)
