"""The channel between the supervisor and a gateway."""

import socket
from collections.abc import AsyncIterator

import pytest

from vipsrv.errors import ProtocolError
from vipsrv.server.gateways.messages import Channel, Kind, Message


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    channel = await Channel.open(ours)
    with theirs:
        yield channel, theirs
    channel.close()


async def test_messages_arrive_in_their_order(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.setblocking(False)
    other = await Channel.open(theirs.dup())
    other.send(Kind.ALIVE, connections=7, is_ready=True)
    other.send(Kind.FAILED, faults=["a line\nbreak"] * 100_000)  # more than a pipe holds
    assert await channel.receive() == Message(Kind.ALIVE, {"connections": 7, "is_ready": True})
    failed = await channel.receive()
    assert failed is not None
    assert failed.values["faults"][-1] == "a line\nbreak"
    theirs.close()
    await other.close_sent()
    assert await channel.receive() is None


@pytest.mark.parametrize("line", [b"x\n", b"[]\n", b"{}\n", b'{"kind": "unknown"}\n'])
async def test_what_is_no_message(ends: tuple[Channel, socket.socket], line: bytes) -> None:
    channel, theirs = ends
    theirs.sendall(line)
    with pytest.raises(ProtocolError, match="this is no message of a gateway or supervisor"):
        await channel.receive()


async def test_half_a_message_is_none(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.sendall(b'{"kind": "ali')
    theirs.close()
    assert await channel.receive() is None


async def test_sending_to_one_that_has_ended_is_no_error(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.close()
    assert await channel.receive() is None
    for _ in range(3):
        channel.send(Kind.STOP)
