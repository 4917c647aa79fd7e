"""From a socket to a file inside the kernel: what arrives, and what stays in the socket."""

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.storage import splice
from vipsrv.storage.splice import Moved, Splicer

pytestmark = pytest.mark.skipif(not splice.available(), reason="splice(2) is Linux'")

KIB = 1024
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The sender's end, and the receiver's, which does not block."""
    if request.param == "unix":
        sender, receiver = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sender = socket.create_connection(listener.getsockname())
            receiver, _ = listener.accept()
    receiver.setblocking(False)
    with sender, receiver:
        yield sender, receiver


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def descriptors() -> list[str]:
    return sorted(link.name for link in Path("/proc/self/fd").iterdir())


@pytest.fixture
def splicer() -> Iterator[Splicer]:
    one = Splicer()
    yield one
    one.close()


def test_bytes_in_the_socket_are_moved_to_the_offset(pair: Pair, target: int, splicer: Splicer) -> None:
    sender, receiver = pair
    data = os.urandom(100 * KIB)
    sender.sendall(data)
    moved = 0
    while moved < len(data):  # TCP brings it in pieces
        moved += splicer.move(receiver.fileno(), target, 5 + moved, 10**9).size
    assert os.pread(target, 10**6, 0) == bytes(5) + data


def test_no_more_is_taken_than_was_asked_for(pair: Pair, target: int, splicer: Splicer) -> None:
    sender, receiver = pair
    sender.sendall(b"body, next message")
    assert splicer.move(receiver.fileno(), target, 0, 4) == Moved(4)
    assert receiver.recv(100) == b", next message"
    assert os.pread(target, 100, 0) == b"body"


def test_an_empty_socket_is_not_waited_for(pair: Pair, target: int, splicer: Splicer) -> None:
    _, receiver = pair
    assert splicer.move(receiver.fileno(), target, 0, 4) == Moved(0)


def test_the_end_of_the_stream_is_left_to_the_reader(pair: Pair, target: int, splicer: Splicer) -> None:
    sender, receiver = pair
    sender.sendall(b"half")
    sender.shutdown(socket.SHUT_WR)
    assert splicer.move(receiver.fileno(), target, 0, 8) == Moved(4)
    assert receiver.recv(100) == b""


def test_a_file_that_cannot_be_written_is_reported_and_the_bytes_are_lost(
    pair: Pair, target: int, tmp_path: Path, splicer: Splicer
) -> None:
    sender, receiver = pair
    sender.sendall(b"lost")
    read_only = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        moved = splicer.move(receiver.fileno(), read_only, 0, 4)
    finally:
        os.close(read_only)
    assert moved.size == 4
    assert isinstance(moved.error, OSError)
    # What was left in the pipe does not end up in the next file.
    sender.sendall(b"next")
    assert splicer.move(receiver.fileno(), target, 0, 4) == Moved(4)
    assert os.pread(target, 100, 0) == b"next"


def test_a_broken_connection_is_not_an_error_of_the_file(target: int, splicer: Splicer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    with receiver:
        receiver.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.close()
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        assert poll.poll(20_000)
        assert splicer.move(receiver.fileno(), target, 0, 100) == Moved(0)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOMEM])
def test_a_small_pipe_does_if_a_larger_one_is_refused(
    pair: Pair, target: int, splicer: Splicer, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    sender, receiver = pair
    data = os.urandom(100 * KIB)
    sender.sendall(data)
    moved = 0
    while moved < len(data):
        assert select.select([receiver], [], [], 20)[0]
        part = splicer.move(receiver.fileno(), target, moved, 10**9).size
        assert part
        moved += part
    assert os.pread(target, 10**6, 0) == data


def test_a_pipe_is_kept_for_the_next_call_and_closed_at_the_end(pair: Pair, target: int) -> None:
    sender, receiver = pair
    before = descriptors()
    splicer = Splicer()
    for _ in range(3):
        sender.sendall(b"body")
        assert select.select([receiver], [], [], 20)[0]
        assert splicer.move(receiver.fileno(), target, 0, 4) == Moved(4)
    assert len(descriptors()) == len(before) + 2
    splicer.close()
    assert descriptors() == before
