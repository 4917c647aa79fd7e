"""The log in a queue: a reader that stalls or has gone never blocks whoever logs."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vipsrv.server.log_queue import MOST_QUEUED, LogQueue, log_to
from vipsrv.server.log_rate import MOST_A_SECOND

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


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_arrive_in_order_with_time_level_and_logger(pipe: Pipe) -> None:
    with log_to(pipe.target, logging.INFO):
        _log.debug("not written")
        _log.info("first %d", 1)
        _log.warning("second é")
    first, second = pipe.read_all().splitlines()
    assert first.endswith(" INFO tests.of.the.log: first 1")
    assert second.endswith(" WARNING tests.of.the.log: second é")


def test_a_traceback_is_written_whole(pipe: Pipe) -> None:
    with log_to(pipe.target, logging.INFO):
        try:
            int("no number")
        except ValueError:
            _log.exception("it failed")
    text = pipe.read_all()
    assert "it failed\nTraceback" in text
    assert text.endswith("'no number'\n")


def test_lines_beyond_the_rate_are_counted_for_each_kind(pipe: Pipe) -> None:
    with log_to(pipe.target, logging.INFO):
        for number in range(MOST_A_SECOND + 5):
            _log.info("request %d: %s", number, "bad_request", extra={"kind": "bad_request"})
            _log.info("request %d: %s", number, "busy", extra={"kind": "busy"})
        _log.info("another")
    lines = [line.partition("tests.of.the.log: ")[2] for line in pipe.read_all().splitlines()]
    assert lines.count("another") == 1
    assert len([line for line in lines if line.endswith(": busy")]) == MOST_A_SECOND + 1
    assert lines[-2:] == ["5 more lines were left out: bad_request", "5 more lines were left out: busy"]


def test_a_mistake_in_a_logging_call_is_a_line(pipe: Pipe) -> None:
    queue = LogQueue(pipe.target)
    queue.handle(logging.LogRecord("a", logging.INFO, "", 0, "%d", ("no number",), None))
    queue.close()
    assert "cannot be formatted" in pipe.read_all()


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: Pipe) -> None:
    filled = pipe.fill()
    queue = LogQueue(pipe.target)
    size = MOST_QUEUED // 8
    lines = [f"{number:0{size}}" for number in range(10)]
    for line in lines:  # returns although nothing reads the pipe
        queue.handle(logging.LogRecord("a", logging.INFO, "", 0, line, None, None))
    reader = Reader(pipe)
    queue.close()
    text = reader.text()[filled:]
    written = [line for line in lines if line in text]
    assert written == lines[:7]  # with their heads, eight are more than the queue holds
    assert "3 lines were dropped: nothing read them" in text


def test_closing_does_not_wait_for_a_reader_for_long(pipe: Pipe) -> None:
    pipe.fill()
    queue = LogQueue(pipe.target)
    queue.handle(logging.LogRecord("a", logging.INFO, "", 0, "never read", None, None))
    queue.close()  # the test would hang here
    queue.close()
    pipe.read_end.close()  # so that the thread ends


def test_a_pipe_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.target, False)
    line = "x" * 200_000  # more than a pipe holds
    with log_to(pipe.target, logging.INFO):
        _log.info(line)
        reader = Reader(pipe)
    assert reader.text().endswith(f" {line}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_the_lines_only() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    queue = LogQueue(descriptor)
    queue.handle(logging.LogRecord("a", logging.INFO, "", 0, "lost", None, None))
    queue.close()  # ends although the lines can never be written
    os.close(descriptor)


def test_the_root_logger_is_left_as_it_was(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with log_to(pipe.target, logging.ERROR):
        assert root.level == logging.ERROR
    assert (root.level, list(root.handlers)) == before
