"""Decides which requests get a line in the log: by the setting, by the level, and by the rate of errors.

Called once for each reply in the event loop, so it puts the request into the queue as it is; the thread of
the log makes the line.
"""

import logging
import time
from itertools import count

from vipsrv.server.accounts import account_key
from vipsrv.server.logs.log_queue import LineKind, LogQueue
from vipsrv.server.logs.log_rate import MOST_A_SECOND
from vipsrv.server.logs.request_line import ROUTINE, RequestLine
from vipsrv.server.settings import AccessLogMode, LogLevel, ServerSettings

_WITHOUT_WORK = frozenset({401, 429, 503})
"""Statuses of requests that are refused without a look at them. Many of them say no more than one does."""

_MOST_OF_ALL = 100
"""Lines of failures with one status that are written in a second, of all clients together."""

_LEVELS = {str(level): level.number for level in LogLevel}

_LOGGER = "vipsrv.request"


class AccessLog:
    """Writes a line for each request to ``queue``; without a queue it writes none."""

    def __init__(self, queue: LogQueue | None = None, settings: ServerSettings | None = None) -> None:
        self._queue = queue
        self._level = logging.CRITICAL
        self._mode = AccessLogMode.OFF
        self._sample = 1
        self._successes = 0
        self._logs_successes = False
        self.next_connection = count(1).__next__
        """Returns the number of a new connection, counted from 1."""
        self.follows_connections = False
        """Whether a line tells that a connection was opened or closed."""
        self.follows_successes = False
        """Whether a success may get a line: always, or if its reply is lost."""
        if settings is not None:
            self.configure(settings)

    @property
    def queue(self) -> LogQueue | None:
        """Where the lines go."""
        return self._queue

    def configure(self, settings: ServerSettings) -> None:
        """Take over settings."""
        self._level = settings.log_level.number
        self._mode = settings.access_log
        self.follows_connections = self._level <= logging.DEBUG
        self._sample = settings.access_log_sample
        self.follows_successes = self._mode is not AccessLogMode.OFF and self._level <= logging.INFO
        self._logs_successes = self.follows_successes and self._mode is AccessLogMode.ALL

    def log(self, line: RequestLine) -> None:
        """Log a request that has ended."""
        queue = self._queue
        if queue is None:
            return
        if line.error is None and line.lost is None:
            if not self._logs_successes:
                return
            if line.kind in ROUTINE:
                if self._level > logging.DEBUG:
                    return
            elif self._sample > 1:
                self._successes += 1
                if self._successes % self._sample:
                    return
                line.sample = self._sample
        elif not self._admits_failure(queue, line):
            return
        line.time = time.time()
        queue.put(line)

    def _admits_failure(self, queue: LogQueue, line: RequestLine) -> bool:
        level = line.level
        if self._mode is AccessLogMode.OFF and level != "error":
            return False
        if _LEVELS[level] < self._level:
            return False
        what = f"{line.status} {'lost' if line.error is None else line.code}"
        most = 1 if line.status in _WITHOUT_WORK else MOST_A_SECOND
        # One client's flood hides no other client's failure, and many clients cannot fill the log.
        return queue.admit(LineKind(level, _LOGGER, f"{what} of {account_key(line.peer)}"), most) and (
            queue.admit(LineKind(level, _LOGGER, f"{what} of many clients"), _MOST_OF_ALL)
        )
