"""The listening sockets that gateways share."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bare_client
from vipsrv.address import Address
from vipsrv.errors import StartFailed
from vipsrv.server.gateways.listening import SharedListeners
from vipsrv.server.listening_sockets import OpenListener

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
def listeners() -> Iterator[SharedListeners]:
    shared = SharedListeners()
    yield shared
    shared.close()


def listen_as_gateway(descriptor: int) -> socket.socket:
    """What a gateway does with a socket that it has inherited."""
    sock = socket.socket(fileno=os.dup(descriptor))
    sock.setblocking(False)
    sock.listen(64)
    return sock


def accept_all(sock: socket.socket) -> int:
    accepted = 0
    while True:
        try:
            connection, _ = sock.accept()
        except BlockingIOError:
            return accepted
        connection.close()
        accepted += 1


async def test_each_gateway_has_a_socket_of_its_own(listeners: SharedListeners) -> None:
    await listeners.open(LOOPBACK, 2)
    (address,) = listeners.addresses
    assert address.port
    (first,), (second,) = (listeners.of(2, gateway) for gateway in range(2))
    assert first.descriptor != second.descriptor
    assert not first.is_shared
    assert first.address == second.address == address
    with pytest.raises(ConnectionRefusedError):
        bare_client.connect(address.port)
    listeners.listen()
    with listen_as_gateway(first.descriptor) as one, listen_as_gateway(second.descriptor) as other:
        clients = [bare_client.connect(address.port) for _ in range(64)]
        shares = accept_all(one), accept_all(other)
        for client in clients:
            client.close()
    assert sum(shares) == 64
    assert min(shares) > 8  # by chance fewer in one of 10⁹ runs


async def test_connections_outlive_the_gateway_at_whose_socket_they_wait(listeners: SharedListeners) -> None:
    await listeners.open(LOOPBACK, 1)
    listeners.listen()
    (own,) = listeners.of(1, 0)
    listen_as_gateway(own.descriptor).close()
    with bare_client.connect(own.address.port):
        listen_as_gateway(own.descriptor).close()
        with listen_as_gateway(own.descriptor) as replacement:
            assert accept_all(replacement) == 1


@pytest.mark.parametrize("before", ["bound", "listening"])
async def test_another_server_of_the_same_user_is_refused(listeners: SharedListeners, before: str) -> None:
    await listeners.open(LOOPBACK, 2)
    other = SharedListeners()
    try:
        if before == "listening":
            listeners.listen()
            with pytest.raises(StartFailed, match="Address already in use"):
                await other.open(listeners.addresses[0], 2)
        else:  # both have bound the address, and the first one to listen has it
            await other.open(listeners.addresses[0], 2)
            other.listen()
            with pytest.raises(StartFailed, match="Address already in use"):
                listeners.listen()
    finally:
        other.close()


async def test_a_unix_socket_is_shared_and_its_file_removed(
    listeners: SharedListeners, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    await listeners.open(Address(path=str(path)), 3)
    sockets = [one for gateway in range(3) for one in listeners.of(3, gateway)]
    assert len({one.descriptor for one in sockets}) == 1
    assert all(one.is_shared for one in sockets)
    (offered,) = listeners.offer()
    assert offered.owned
    listeners.close()
    assert not path.exists()


async def test_the_file_stays_if_a_successor_has_the_socket(
    listeners: SharedListeners, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    await listeners.open(Address(path=str(path)), 2)
    listeners.shared = True
    listeners.close()
    assert path.exists()


async def test_sockets_of_another_server_are_used_by_any_number_of_gateways(
    listeners: SharedListeners,
) -> None:
    before = SharedListeners()
    await before.open(Address("127.0.0.1", 0, tls=True), 2)
    before.listen()
    listen_as_gateway(before.offer()[1].descriptor).close()
    given = [
        OpenListener.of(
            os.dup(one.descriptor), "a test", tls=one.address.tls, wire=one.address.wire, owned=one.owned
        )
        for one in before.offer()
    ]
    listeners.adopt(given)
    assert listeners.addresses == before.addresses
    assert [len(listeners.of(1, 0)), len(listeners.of(2, 0)), len(listeners.of(2, 1))] == [2, 1, 1]
    users = [listeners.of(3, gateway) for gateway in range(3)]
    # The first and the last one share a socket; that of the second one is its own.
    assert [[one.is_shared for one in used] for used in users] == [[True], [False], [True]]
    before.close()


async def test_a_taken_port_and_a_wrong_name(listeners: SharedListeners) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await listeners.open(Address("127.0.0.1", port), 2)
    with pytest.raises(StartFailed, match=r"cannot listen on none\.invalid:0"):
        await listeners.open(Address("none.invalid", 0), 2)
