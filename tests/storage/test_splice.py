"""From a socket to a file without Python: what arrives, and what remains where it was."""

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vipsrv.storage import splice

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


def test_what_is_there_is_moved_to_its_place(pair: Pair, target: int) -> None:
    sender, receiver = pair
    data = os.urandom(100 * KIB)
    sender.sendall(data)
    moved = 0
    while moved < len(data):  # TCP brings it in pieces
        moved += splice.move(receiver.fileno(), target, 5 + moved, 10**9).size
    assert os.pread(target, 10**6, 0) == bytes(5) + data


def test_no_more_is_taken_than_was_asked_for(pair: Pair, target: int) -> None:
    sender, receiver = pair
    sender.sendall(b"body, next message")
    assert splice.move(receiver.fileno(), target, 0, 4) == splice.Moved(4)
    assert receiver.recv(100) == b", next message"
    assert os.pread(target, 100, 0) == b"body"


def test_an_empty_socket_is_no_reason_to_wait(pair: Pair, target: int) -> None:
    _, receiver = pair
    assert splice.move(receiver.fileno(), target, 0, 4) == splice.Moved(0)


def test_the_end_is_left_for_the_reader_to_find(pair: Pair, target: int) -> None:
    sender, receiver = pair
    sender.sendall(b"half")
    sender.shutdown(socket.SHUT_WR)
    assert splice.move(receiver.fileno(), target, 0, 8) == splice.Moved(4)
    assert receiver.recv(100) == b""


def test_a_file_that_cannot_be_written_is_told_and_the_bytes_are_gone(
    pair: Pair, target: int, tmp_path: Path
) -> None:
    sender, receiver = pair
    sender.sendall(b"lost")
    read_only = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        moved = splice.move(receiver.fileno(), read_only, 0, 4)
    finally:
        os.close(read_only)
    assert moved.size == 4
    assert isinstance(moved.error, OSError)
    # What was left in the pipe does not come up in the next file.
    sender.sendall(b"next")
    assert splice.move(receiver.fileno(), target, 0, 4) == splice.Moved(4)
    assert os.pread(target, 100, 0) == b"next"


def test_a_broken_connection_is_no_error_of_the_file(target: int) -> None:
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
        assert splice.move(receiver.fileno(), target, 0, 100) == splice.Moved(0)


def test_without_the_right_to_a_larger_pipe_it_works_with_a_small_one(
    pair: Pair, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(splice, "_threads", threading.local())
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    sender, receiver = pair
    data = os.urandom(100 * KIB)
    sender.sendall(data)
    moved = 0
    while moved < len(data):
        moved += splice.move(receiver.fileno(), target, moved, 10**9).size
    assert os.pread(target, 10**6, 0) == data
    splice._drop_pipe()
