"""Jobs that a worker's socket does not take at once."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from vipsrv.workers.sender import Sender

PATIENCE = 30
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The sender's end, which does not block, and the other one."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(PATIENCE)
    with ours, theirs:
        yield ours, theirs


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def not_broken() -> None:
    raise AssertionError("the socket is reported as broken")


async def test_what_the_socket_takes_at_once_is_sent_at_once(pair: Pair) -> None:
    ours, theirs = pair
    sender = Sender(asyncio.get_running_loop(), ours, not_broken)
    sender.send([memoryview(b"head, "), memoryview(b"image")])
    assert not sender.busy
    assert read(theirs, 11) == b"head, image"
    sender.close()


async def test_the_rest_follows_in_order_when_there_is_room(pair: Pair) -> None:
    ours, theirs = pair
    sender = Sender(asyncio.get_running_loop(), ours, not_broken)
    parts = [bytes([number]) * (1 << 20) for number in range(4)]
    sender.send([memoryview(part) for part in parts])
    assert sender.busy
    sender.append(memoryview(b"cancel"))
    sent = b"".join(parts) + b"cancel"
    assert await asyncio.get_running_loop().run_in_executor(None, read, theirs, len(sent)) == sent
    assert not sender.busy
    sender.append(memoryview(b"another"))
    assert not sender.busy
    assert read(theirs, 7) == b"another"
    sender.close()


async def test_a_broken_socket_is_reported(pair: Pair) -> None:
    ours, theirs = pair
    broken = asyncio.Event()
    sender = Sender(asyncio.get_running_loop(), ours, broken.set)
    sender.send([memoryview(bytes(1 << 22))])
    theirs.close()
    await asyncio.wait_for(broken.wait(), PATIENCE)
    sender.close()


async def test_a_socket_that_is_broken_from_the_beginning_is_an_error(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    sender = Sender(asyncio.get_running_loop(), ours, not_broken)
    with pytest.raises(OSError, match="Broken pipe"):
        sender.send([memoryview(b"job")])
    assert not sender.busy
