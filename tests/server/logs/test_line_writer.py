"""Lines that cannot all be written."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vipsrv.server.logs.line_writer import LineWriter

LINES = [b"first\n", b"second\n", b"third\n"]
LATER = b"later\n"


@contextmanager
def most_bytes(size: int) -> Iterator[None]:
    """No file of this process can grow beyond ``size`` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def text_of(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode()


@pytest.mark.parametrize(
    ("room", "whole", "text"),
    [
        (0, 0, "later\n"),
        (3, 0, "fir\nlater\n"),
        (6, 1, "first\nlater\n"),
        (12, 1, "first\nsecond\nlater\n"),
        (13, 2, "first\nsecond\nlater\n"),
        (19, 3, "first\nsecond\nthird\nlater\n"),
    ],
)
def test_a_line_that_is_cut_spoils_no_other(descriptor: int, room: int, whole: int, text: str) -> None:
    writer = LineWriter(descriptor)
    with most_bytes(room):
        assert writer.write(LINES) == whole
    assert writer.write([LATER]) == 1
    assert text_of(descriptor) == text


def test_a_disk_that_stays_full_costs_one_line_break(descriptor: int) -> None:
    writer = LineWriter(descriptor)
    with most_bytes(3):
        assert writer.write(LINES) == 0
        assert writer.write(LINES) == 0
    with most_bytes(4):  # room for the line break only
        assert writer.write(LINES) == 0
    assert writer.write([LATER]) == 1
    assert text_of(descriptor) == "fir\nlater\n"


def test_a_descriptor_that_is_closed_loses_the_lines(descriptor: int) -> None:
    closed = os.dup(descriptor)
    os.close(closed)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(closed)
    assert LineWriter(closed).write(LINES) == 0


def test_a_pipe_gets_whole_lines_in_each_write(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        assert descriptor == writer
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    lines = [b"%d" % number + b"x" * 1500 + b"\n" for number in range(5)] + [b"y" * 5000 + b"\n", b"last\n"]
    try:
        assert LineWriter(writer).write(lines) == len(lines)
    finally:
        os.close(reader)
        os.close(writer)
    assert [data.count(b"\n") for data in written] == [2, 2, 1, 1, 1]
    assert b"".join(written) == b"".join(lines)
