"""Writes the log in a thread, so that a log reader that stalls never stops the event loop.

::

    event loop ──► rate limit for each kind ──► bounded queue ──► thread: renders ──► standard error or a file
                   leaves out and counts        drops and counts

A pipe that nobody reads and a terminal that is stopped by ctrl-S block the thread only. A line of its own
counts those that were left out, and those that were dropped.

Waking the thread for one line would cost more than the line. So lines of requests wait until there are
several, for ``GATHER_SECONDS`` at most, and are written by one system call; other lines wake it at once.
"""

import logging
import math
import threading
import time
from collections import deque
from typing import NamedTuple

from vipsrv.server.logs.entries import Entry, LogEntry
from vipsrv.server.logs.line_writer import LineWriter
from vipsrv.server.logs.log_file import LogFile
from vipsrv.server.logs.log_rate import MOST_A_SECOND, LeftOut, LogRate
from vipsrv.server.logs.rendering import Render

MOST_QUEUED = 4 * 1024 * 1024
"""Bytes of lines that wait to be written; further lines are dropped."""

GATHER_SECONDS = 0.1
"""How long the line of a request may wait for others."""

LAST_LINES_SECONDS = 1.0
"""How long the end of the process waits for the last lines to be written."""

_MOST_AT_ONCE = 32
"""Lines that are rendered before a system call lets the event loop go on: about 0.3 ms."""

_LONGEST_LABEL = 200
"""Characters: messages that begin with the same ones are of one kind."""


class LineKind(NamedTuple):
    """What the lines have in common that share a rate limit."""

    level: str
    logger: str
    label: str


_OTHER_KINDS = LineKind("warning", __name__, "of many kinds")


class LogTarget(NamedTuple):
    """Where lines are written, and how they are rendered."""

    descriptor: int
    render: Render
    file: LogFile | None = None
    """The file that has the descriptor; it is closed when no line is written to it any more."""

    def close(self) -> None:
        """Close the file, if it is one."""
        if self.file is not None:
            self.file.close()


class LogQueue:
    """Writes entries from a thread of its own. No method waits for the target, except ``close``, which waits
    for at most ``LAST_LINES_SECONDS``.
    """

    def __init__(self, target: LogTarget) -> None:
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._target = target
        self._replaced: list[LogTarget] = []
        self._entries: deque[Entry] = deque()
        self._due = 0.0  # when the oldest of `_entries` is to be written, in seconds of time.monotonic
        self._urgent = False  # whether `_entries` are to be written now
        self._queued = 0  # bytes of `_entries`, and of those that the thread is writing
        self._dropped = 0  # lines that were dropped and not reported yet
        self._all_dropped = 0
        self._rate: LogRate[LineKind] = LogRate(rest=_OTHER_KINDS)
        self._closing = False
        # A daemon: a process that ends does not wait for a thread that is stuck in a write.
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        """The number of lines since the start that nothing read or that could not be written."""
        return self._all_dropped

    @property
    def left_out(self) -> int:
        """The number of lines since the start that were too many of their kind."""
        return self._rate.left_out

    def put(self, entry: Entry, *, urgent: bool = False) -> None:
        """Queue an entry, or count it as dropped; an ``urgent`` one is written at once."""
        size = entry.size
        with self._changed:
            if self._queued + size > MOST_QUEUED:
                self._dropped += 1
                self._all_dropped += 1
                return
            self._queued += size
            entries = self._entries
            entries.append(entry)
            if urgent or self._queued > MOST_QUEUED // 2:
                if not self._urgent:
                    self._urgent = True
                    self._changed.notify()
            elif len(entries) == 1:
                self._due = time.monotonic() + GATHER_SECONDS
                self._changed.notify()

    def admit(self, kind: LineKind, most: int = MOST_A_SECOND) -> bool:
        """Return whether to ``put`` a line of ``kind``, or count it as left out."""
        with self._changed:
            return self._rate.admit(kind, time.monotonic(), most)

    def switch(self, target: LogTarget) -> None:
        """Write further lines to another target, and close the present one if it is a file."""
        with self._changed:
            self._replaced.append(self._target)
            self._target = target
            self._urgent = True
            self._changed.notify()

    def close(self) -> None:
        """Write what is queued, for at most ``LAST_LINES_SECONDS``, and end the thread."""
        with self._changed:
            already_closing, self._closing = self._closing, True
            self._changed.notify()
        if not already_closing:
            self._writer.join(LAST_LINES_SECONDS)

    # What the thread does

    def _write(self) -> None:
        target, writer = self._target, LineWriter(self._target.descriptor)
        while True:
            wanted, entries, reported = self._next_entries()
            if not entries:
                break
            if wanted is not target:
                target, writer = wanted, LineWriter(wanted.descriptor)
            whole = writer.write([_line(target, entry) for entry in entries])
            with self._changed:
                self._queued -= sum([entry.size for entry in entries])
                if whole == len(entries):
                    self._dropped -= reported
                else:
                    # The last line, which tells what was dropped, is lost with the others and comes again.
                    dropped = len(entries) - whole - (reported > 0)
                    self._dropped += dropped
                    self._all_dropped += dropped
                    if self._closing and self._target is target:
                        break  # a further try would fail, too
        self._target.close()

    def _next_entries(self) -> tuple[LogTarget, list[Entry], int]:
        """Wait for entries to write, and return how many dropped lines they report; none at the end."""
        with self._changed:
            while True:
                self._close_replaced()
                now = time.monotonic()
                entries = self._take_due(now)
                reported = 0
                if not self._entries:  # after the entries before them, in the order of their times
                    self._urgent = False
                    reports = self._reports(math.inf if self._closing else now)
                    if self._dropped and (entries or self._closing):
                        reported = self._dropped
                        reports.append(_report_of_dropped(reported))
                    self._queued += sum(report.size for report in reports)
                    entries += reports
                if entries or self._closing:
                    return self._target, entries, reported
                due = self._due if self._entries else self._rate.next_end()
                self._changed.wait(None if due == math.inf else due - now)

    def _take_due(self, now: float) -> list[Entry]:
        """Take the next entries out of the queue, if they are to be written now."""
        entries = self._entries
        if not (self._urgent or self._closing or now >= self._due):
            return []
        return [entries.popleft() for _ in range(min(_MOST_AT_ONCE, len(entries)))]

    def _close_replaced(self) -> None:
        """Close the targets that were replaced, now that no line is being written to them."""
        for target in self._replaced:
            target.close()
        self._replaced.clear()

    def _reports(self, now: float) -> list[Entry]:
        """Return a line for each kind of which lines were left out."""
        return [_report(kind, left_out) for kind, left_out in self._rate.take_left_out(now).items()]


class LogHandler(logging.Handler):
    """Puts the records of Python's ``logging`` into a queue.

    Records of one kind share a rate limit. The kind of a record is its logger, its level and its message
    before formatting; ``extra={"kind": text}`` in the logging call replaces the message in it.
    """

    def __init__(self, queue: LogQueue) -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the entry of a record, or count it as left out or dropped."""
        label = str(getattr(record, "kind", record.msg))[:_LONGEST_LABEL]
        if self._queue.admit(LineKind(record.levelname.lower(), record.name, label)):
            self._queue.put(LogEntry.from_record(record), urgent=True)


def _report(kind: LineKind, left_out: LeftOut) -> LogEntry:
    label = " ".join(kind.label.split())
    text = f"{left_out.lines} more lines were left out: {label}"
    extra = {"left_out": left_out.lines, "seconds": round(left_out.seconds, 1)}
    return LogEntry(time.time(), kind.level, kind.logger, text, extra=extra)


def _report_of_dropped(lines: int) -> LogEntry:
    text = f"{lines} lines were dropped: nothing read them, or they could not be written"
    return LogEntry(time.time(), "warning", __name__, text)


def _line(target: LogTarget, entry: Entry) -> bytes:
    try:
        return target.render(entry)
    except Exception as error:  # noqa: BLE001 - a bug in one line must not end the log
        text = f"a line cannot be rendered: {error!r}"
        return target.render(LogEntry(time.time(), "error", __name__, text))
