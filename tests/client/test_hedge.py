"""Hedging: when an image is sent to a second server, and what both clients do with the slower one."""

import threading

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import Peer
from vipsrv.address import Address
from vipsrv.client import Hedge, Retry
from vipsrv.client.hedge import LEAST_KNOWN, Hedging
from vipsrv.client.requests import INFO, resize_request
from vipsrv.client.retry import RetryBudget
from vipsrv.client.servers import Servers, ServerState
from vipsrv.client.sources import Source
from vipsrv.errors import Cancelled, ConnectFailed
from vipsrv.protocol import Kind

RESIZE = resize_request(None, {"width": 8, "height": 6})


A, B = Address("a", 1), Address("b", 1)


class Known:
    servers = Servers([A, B])


def hedging() -> tuple[Hedging, Servers[Address], RetryBudget]:
    known, budget = Known(), RetryBudget(Retry(tokens=10))
    known.servers = Servers([A, B])
    return Hedging(Hedge(most_bytes=10), known, budget), known.servers, budget


def test_the_delay_is_that_within_which_most_calls_were_answered() -> None:
    one, _, _ = hedging()
    for number in range(1, LEAST_KNOWN):
        one.note(number / 100)
        assert one.delay() is None
    one.note(LEAST_KNOWN / 100)
    assert one.delay() == LEAST_KNOWN / 100
    for _ in range(1000):
        one.note(0.5)
    assert one.delay() == 0.5


def test_a_second_attempt_takes_a_token_and_none_is_made_when_they_are_spent() -> None:
    one, servers, budget = hedging()
    for _ in range(LEAST_KNOWN):
        one.note(0.1)
    for left in range(9, 4, -1):
        place = one.second(A)
        assert place is not None
        assert place.server.endpoint == B
        one.end(place, None, cancelled=True)
        assert budget.tokens == left
    assert one.delay() is None
    assert [server.in_flight for server in servers.all] == [0, 0]


def test_without_another_server_that_is_well_there_is_no_second_attempt() -> None:
    one, servers, budget = hedging()
    place = one.second(A)
    assert place is not None
    one.end(place, ConnectFailed("refused"))
    assert servers.all[1].state is ServerState.LEFT_OUT
    assert one.second(A) is None
    assert budget.tokens == 9


def test_what_may_be_sent_twice() -> None:
    one, _, _ = hedging()
    assert one.fits(RESIZE, Source(data=memoryview(bytes(10))))
    assert not one.fits(RESIZE, Source(data=memoryview(bytes(11))))
    assert not one.fits(INFO, Source(data=memoryview(bytes(10))))


@pytest.mark.parametrize("share", [0, 1, -1, float("nan")])
def test_an_impossible_share(share: float) -> None:
    with pytest.raises(ValueError, match="share: must be between 0 and 1"):
        Hedge(share=share)


def test_impossible_bytes() -> None:
    with pytest.raises(ValueError, match="most_bytes: must be a whole number"):
        Hedge(most_bytes=0)


def test_the_slower_of_two_attempts_is_cancelled(make_client: MakeClient, serve: Serve) -> None:
    hold, held, cancelled = threading.Event(), threading.Event(), threading.Event()

    def answer_all_but_one(peer: Peer) -> None:
        while (head := peer.read_head()) is not None:
            body = peer.read_body()
            if hold.is_set() and not held.is_set():
                held.set()
                other, _ = peer.read_request()
                while other.kind == Kind.PING:
                    peer.reply(other)
                    other, _ = peer.read_request()
                assert other.kind == Kind.CANCEL
                cancelled.set()
                peer.refuse(head, Cancelled("cancelled"))
                peer.reply(other)
            else:
                peer.reply(head, body=body)

    servers = serve(answer_all_but_one), serve(answer_all_but_one)
    client = make_client(
        servers=[f"127.0.0.1:{server.port}" for server in servers], hedge=Hedge(), retry=Retry()
    )
    for _ in range(3 * LEAST_KNOWN):
        client.call("resize", b"image", width=8, height=6)
    assert all(server.connections == 1 for server in servers), "both are used and connected"
    hold.set()
    result = client.call("resize", b"image", width=8, height=6)
    assert result.attempts == 2
    assert held.is_set()
    assert cancelled.wait(30)
    assert client.call("resize", b"image", width=8, height=6).data == b"image"
