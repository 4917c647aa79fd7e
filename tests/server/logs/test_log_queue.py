"""The log in a queue: a reader that stalls or has gone never blocks whoever logs."""

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vipsrv.server.logs.entries import Entry, LogEntry
from vipsrv.server.logs.log_queue import MOST_QUEUED, LineKind, LogHandler, LogQueue, LogTarget
from vipsrv.server.logs.log_rate import MOST_A_SECOND
from vipsrv.server.logs.rendering import json_renderer
from vipsrv.server.logs.server_log import ServerLog
from vipsrv.server.settings import LogFormat, LogLevel, ServerSettings

_log = logging.getLogger("tests.of.the.log")


class Pipe:
    """A pipe that stands for standard error."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self.read_end = os.fdopen(read_end, "rb", buffering=0)
        self.write_end = os.fdopen(write_end, "wb", buffering=0)

    @property
    def target(self) -> int:
        """The descriptor to write to."""
        return self.write_end.fileno()

    def fill(self) -> int:
        """Leave no room in it; return the bytes that this took."""
        filled = 0
        os.set_blocking(self.target, False)
        with suppress(BlockingIOError):
            while True:
                filled += os.write(self.target, b"\n")
        os.set_blocking(self.target, True)
        return filled

    def read_all(self) -> str:
        """Close the write end and read to the end."""
        self.write_end.close()
        return self.read_end.read().decode()

    def close(self) -> None:
        """Close both ends."""
        self.read_end.close()
        self.write_end.close()


class Reader:
    """Reads a pipe to its end in a thread."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._data = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def text(self) -> str:
        """Close the write end; return what arrived."""
        self._pipe.write_end.close()
        self._thread.join()
        return self._data.decode()

    def _read(self) -> None:
        self._data = self._pipe.read_end.read()


def log_to(descriptor: int, level: LogLevel = LogLevel.INFO) -> ServerLog:
    settings = ServerSettings(log_level=level, log_format=LogFormat.JSON)
    return ServerLog(settings, standard_error=descriptor)


def queue_to(descriptor: int) -> LogQueue:
    return LogQueue(LogTarget(descriptor, json_renderer()))


def entry(event: str) -> LogEntry:
    return LogEntry(0.0, "info", "a", event)


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_arrive_in_order_with_time_level_and_logger(pipe: Pipe) -> None:
    with log_to(pipe.target):
        _log.debug("not written")
        _log.info("first %d", 1)
        _log.warning("second é")
    first, second = parsed(pipe.read_all())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "info", "logger": "tests.of.the.log", "event": "first 1"}
    assert (second["level"], second["event"]) == ("warning", "second é")


def test_a_traceback_is_written_whole_in_the_same_line(pipe: Pipe) -> None:
    with log_to(pipe.target):
        try:
            int("no \x1b[31mnumber")
        except ValueError:
            _log.exception("it failed")
    (line,) = parsed(pipe.read_all())
    assert line["event"] == "it failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("\\x1b[31mnumber'")
    assert "\x1b" not in line["exception"]


def test_lines_beyond_the_rate_are_counted_for_each_kind(pipe: Pipe) -> None:
    with log_to(pipe.target):
        for number in range(MOST_A_SECOND + 5):
            _log.info("request %d: %s", number, "bad_request", extra={"kind": "bad_request"})
            _log.info("request %d: %s", number, "busy", extra={"kind": "busy"})
        _log.info("another")
    lines = parsed(pipe.read_all())
    events = [line["event"] for line in lines]
    assert events.count("another") == 1
    assert len([event for event in events if event.endswith(": busy")]) == MOST_A_SECOND + 1
    assert events[-2:] == ["5 more lines were left out: bad_request", "5 more lines were left out: busy"]
    assert [line["left_out"] for line in lines[-2:]] == [5, 5]


def test_a_mistake_in_a_logging_call_is_a_line(pipe: Pipe) -> None:
    queue = queue_to(pipe.target)
    record = logging.LogRecord("a", logging.INFO, "", 0, "%d", ("no number",), None)
    LogHandler(queue).handle(record)
    queue.close()
    assert "cannot be formatted" in pipe.read_all()


def test_an_entry_that_cannot_be_rendered_is_a_line_and_the_next_one_follows(pipe: Pipe) -> None:
    deep: list[object] = []
    deep.append(deep)
    queue = queue_to(pipe.target)
    queue.put(LogEntry(0.0, "info", "a", "a bug", extra={"deep": deep}))
    queue.put(entry("the next one"))
    queue.close()
    first, second = parsed(pipe.read_all())
    assert "cannot be rendered" in first["event"]
    assert second["event"] == "the next one"


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: Pipe) -> None:
    filled = pipe.fill()
    queue = queue_to(pipe.target)
    size = MOST_QUEUED // 8
    lines = [f"{number:0{size}}" for number in range(10)]
    for line in lines:  # returns although nothing reads the pipe
        queue.put(entry(line))
    reader = Reader(pipe)
    queue.close()
    text = reader.text()[filled:]
    written = [line for line in lines if line in text]
    assert written == lines[:7]  # with their heads, eight are more than the queue holds
    assert "3 lines were dropped: nothing read them" in text
    assert queue.dropped == 3


def test_the_number_of_dropped_lines_comes_after_the_lines_before_them(pipe: Pipe) -> None:
    filled = pipe.fill()
    queue = queue_to(pipe.target)
    text = "x" * (MOST_QUEUED // 64)
    for _ in range(70):
        queue.put(entry(text))
    reader = Reader(pipe)
    queue.close()
    events = [line["event"] for line in parsed(reader.text()[filled:])]
    assert len(events) > 33  # more than are written at once
    assert events[:-1] == [text] * (len(events) - 1)
    assert events[-1].startswith(f"{70 - len(events) + 1} lines were dropped: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_lines_that_a_full_disk_has_cost_are_counted_once_it_has_room(pipe: Pipe) -> None:
    tried = {"first": threading.Event(), "second": threading.Event()}
    render = json_renderer()

    def render_and_tell(entry: Entry) -> bytes:
        if isinstance(entry, LogEntry) and entry.event in tried:
            tried[entry.event].set()
        return render(entry)

    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - its descriptor is needed
        queue = LogQueue(LogTarget(full.fileno(), render_and_tell))
        for event, lines in (("first", 4), ("second", 1)):
            for _ in range(lines):
                queue.put(entry(event))
            assert tried[event].wait(10)
        queue.switch(LogTarget(pipe.target, render))
        queue.put(entry("third"))
        queue.close()
    third, report = parsed(pipe.read_all())
    assert third["event"] == "third"
    assert report["event"].startswith("5 lines were dropped: ")
    assert queue.dropped == 5


def test_closing_does_not_wait_for_a_reader_for_long(pipe: Pipe) -> None:
    pipe.fill()
    queue = queue_to(pipe.target)
    queue.put(entry("never read"))
    queue.close()  # the test would hang here
    queue.close()
    pipe.read_end.close()  # so that the thread ends


def test_a_pipe_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.target, False)
    line = "x" * 200_000  # more than a pipe holds
    with log_to(pipe.target):
        _log.info(line)
        reader = Reader(pipe)
    assert reader.text().endswith(f'"{line}"}}\n')


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_the_lines_only() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    queue = queue_to(descriptor)
    queue.put(entry("lost"))
    queue.close()  # ends although the lines can never be written
    os.close(descriptor)


def test_lines_that_are_not_urgent_are_written_without_another_one(pipe: Pipe) -> None:
    queue = queue_to(pipe.target)
    queue.put(entry("alone"))
    assert b"alone" in pipe.read_end.read(1024)  # the test would hang here
    queue.put(entry("one more"))
    assert b"one more" in pipe.read_end.read(1024)
    queue.close()


def test_the_count_of_a_flood_is_written_without_another_line(pipe: Pipe) -> None:
    queue = queue_to(pipe.target)
    assert queue.admit(LineKind("info", "a", "b"), most=1)
    queue.put(entry("the first one"))
    assert b"the first one" in pipe.read_end.read(1024)
    assert not any(queue.admit(LineKind("info", "a", "b"), most=1) for _ in range(2))
    assert b"2 more lines were left out: b" in pipe.read_end.read(1024)  # the test would hang here
    queue.close()


def test_the_root_logger_is_left_as_it_was(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with log_to(pipe.target, LogLevel.ERROR):
        assert root.level == logging.ERROR
    assert (root.level, list(root.handlers)) == before
