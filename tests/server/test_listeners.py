"""Listeners with real sockets, on both event loops."""

import asyncio
import socket
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pytest

from tests.support import bare_client
from vipsrv.address import Address
from vipsrv.server.listeners import ACCEPTS_AT_ONCE, Listener, ListenerState


class Greeting(asyncio.Protocol):
    """Says that it was accepted, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        writing.write(b"accepted")
        writing.close()


async def greeting(sock: socket.socket) -> bytes:
    async with asyncio.timeout(bare_client.SECONDS):
        sock.setblocking(False)
        return await asyncio.get_running_loop().sock_recv(sock, 100)


def connect(listener: Listener) -> socket.socket:
    (address,) = listener.addresses
    return socket.create_connection((address.host, address.port), bare_client.SECONDS)


async def test_more_connections_wait_than_are_accepted_at_once() -> None:
    listener = await Listener.bind(Address("127.0.0.1", 0), Greeting)
    await listener.start()
    with ExitStack() as sockets:
        # The event loop does not turn meanwhile.
        waiting = [sockets.enter_context(connect(listener)) for _ in range(ACCEPTS_AT_ONCE + 36)]
        assert [await greeting(sock) for sock in waiting] == [b"accepted"] * len(waiting)
    listener.close()
    assert listener.state is ListenerState.CLOSED


@pytest.mark.skipif(find_spec("uvloop") is None, reason="asyncio's own event loop pauses by itself")
def test_connections_wait_while_a_listener_is_paused() -> None:
    import uvloop  # noqa: PLC0415 - an optional dependency

    async def main() -> None:
        listener = await Listener.bind(Address("127.0.0.1", 0), Greeting)
        (address,) = listener.addresses
        await listener.start()
        for _ in range(2):
            listener.pause()
            listener.pause()
            assert listener.state.value == "paused"
            with ExitStack() as sockets:
                many = [
                    sockets.enter_context(
                        socket.create_connection((address.host, address.port), bare_client.SECONDS)
                    )
                    for _ in range(ACCEPTS_AT_ONCE + 36)
                ]
                await asyncio.sleep(0)
                await listener.resume()
                await listener.resume()
                assert listener.state.value == "accepting"
                assert [await greeting(sock) for sock in many] == [b"accepted"] * len(many)
        listener.pause()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port), bare_client.SECONDS)

    uvloop.run(main())


async def test_a_unix_socket_is_never_paused(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = await Listener.bind(Address(path=str(path)), Greeting)
    await listener.start()
    listener.pause()
    assert listener.state is ListenerState.ACCEPTING
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        assert await greeting(sock) == b"accepted"
    listener.close()
    assert not path.exists()
