"""Connections that a load holds open."""

from bench.load.idle import ADDRESSES, IdleConnections
from tests.client.fake_server import FakeServer, Peer


def test_idle_connections_come_from_several_addresses_and_stay_open() -> None:
    addresses = []

    def answer(peer: Peer) -> None:
        addresses.append(peer.socket.getpeername()[0])
        head, _ = peer.read_request()
        peer.reply(head, body=b"")
        peer.read_to_end()

    count = ADDRESSES + 2
    with FakeServer(*[answer] * count) as server, IdleConnections("127.0.0.1", server.port, count) as held:
        assert (held.stats().asked, held.stats().open_at_end) == (count, count)
    assert len(addresses) == count
    assert len(set(addresses)) == ADDRESSES
