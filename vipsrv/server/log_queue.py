"""Writes the log in a thread, so that a log reader that stalls never stops the event loop.

::

    logging call ──► rate limit for each kind ──► bounded queue ──► thread ──► standard error
                     leaves out and counts        drops and counts

A pipe that nobody reads and a terminal that is stopped by ctrl-S block the thread only. A line of its own
counts those that were left out, after a second, and those that were dropped, after the next line.
"""

import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vipsrv.server.log_rate import LogRate

MOST_QUEUED = 1024 * 1024
"""Bytes of lines that wait to be written; further lines are dropped."""

LAST_LINES_SECONDS = 1.0
"""How long the end of the process waits for the last lines to be written."""

STANDARD_ERROR = 2

_LONGEST_LABEL = 200
"""Characters: messages that begin with the same ones are of one kind."""

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Kind(NamedTuple):
    """What the lines have in common that share a rate limit."""

    level: int
    logger: str
    label: str


_OTHER_KINDS = _Kind(logging.WARNING, __name__, "of many kinds")


class LogQueue(logging.Handler):
    """Writes records to a descriptor from a thread of its own. No method waits for the descriptor, except
    ``close``, which waits for at most ``LAST_LINES_SECONDS``.

    Records of one kind share a rate limit. The kind of a record is its logger, its level and its message
    before formatting; ``extra={"kind": text}`` in the logging call replaces the message in it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))
        self._descriptor = descriptor
        self._changed = threading.Condition()  # guards the fields below
        self._lines: deque[bytes] = deque()
        self._queued = 0  # bytes in `_lines`, and those that the thread is writing
        self._dropped = 0  # lines that were dropped and not reported yet
        self._rate = LogRate(rest=_OTHER_KINDS)
        self._closing = False
        # A daemon: a process that ends does not wait for a thread that is stuck in a write.
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line of a record, or count it as left out or dropped."""
        kind = _Kind(record.levelno, record.name, str(getattr(record, "kind", record.msg))[:_LONGEST_LABEL])
        with self._changed:
            if not self._rate.admit(kind, time.monotonic()):
                return
        line = self._line(record)
        with self._changed:
            if self._queued + len(line) > MOST_QUEUED:
                self._dropped += 1
                return
            if not self._lines:
                self._changed.notify()
            self._lines.append(line)
            self._queued += len(line)

    def close(self) -> None:
        """Write what is queued, for at most ``LAST_LINES_SECONDS``, and end the thread."""
        with self._changed:
            already_closing, self._closing = self._closing, True
            self._changed.notify()
        if not already_closing:
            self._writer.join(LAST_LINES_SECONDS)
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - a bug in a logging call; logging's own report would block
            text = f"{record.levelname} {record.name}: cannot be formatted ({error!r}): {record.msg!r}"
        return text.encode("utf-8", "backslashreplace") + b"\n"

    # What the thread does

    def _write(self) -> None:
        while lines := self._next_lines():
            data = b"".join(lines)
            written = _write_all(self._descriptor, data)
            with self._changed:
                self._queued -= len(data)
                if not written:
                    self._dropped += len(lines)
                    if self._closing:
                        return

    def _next_lines(self) -> list[bytes]:
        """Wait for lines to write; empty once there are no more and the handler is closing."""
        with self._changed:
            while True:
                reports = self._reports()
                if self._lines or reports or self._closing:
                    break
                due = self._rate.next_end()
                self._changed.wait(None if due == math.inf else max(0.0, due - time.monotonic()))
            if self._dropped and (self._lines or self._closing):
                text = f"{self._dropped} lines were dropped: nothing read them, or they could not be written"
                reports.append(self._report(logging.WARNING, __name__, text))
                self._dropped = 0
            lines = [*self._lines, *reports]
            self._lines.clear()
            self._queued += sum(map(len, reports))
            return lines

    def _reports(self) -> list[bytes]:
        """Return a line for each kind of which lines were left out."""
        left_out = self._rate.take_left_out(math.inf if self._closing else time.monotonic())
        return [
            self._report(kind.level, kind.logger, f"{count} more lines were left out: {kind.label}")
            for kind, count in left_out.items()
        ]

    def _report(self, level: int, logger: str, text: str) -> bytes:
        text = " ".join(text.split())  # in one line
        return self._line(logging.LogRecord(logger, level, "", 0, text, None, None))


def _write_all(descriptor: int, data: bytes) -> bool:
    """Write, and wait for a reader as long as it takes; return whether everything could be written."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another process has made the pipe or terminal non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError:  # closed, or a full disk
            return False
    return True


@contextmanager
def log_to(descriptor: int, level: int) -> Iterator[None]:
    """Write what is logged at ``level`` or above to ``descriptor`` from a thread, until the block ends."""
    root = logging.getLogger()
    before = root.level
    queue = LogQueue(descriptor)
    root.addHandler(queue)
    root.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(queue)
        root.setLevel(before)
        queue.close()
