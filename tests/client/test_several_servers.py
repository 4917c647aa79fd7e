"""Both clients with several servers, which are fake ones: what they do when one of them fails."""

import threading
from collections.abc import Sequence

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import LARGE, Peer, every, silent
from tests.support.unused_port import unused_port
from vipsrv.client import AsyncClient, Client, Retry, Timeout
from vipsrv.client.silence import ASK_AFTER
from vipsrv.errors import ClientTimeout, ConnectFailed, Draining
from vipsrv.protocol import Kind

IMPATIENT = Timeout(ping=0.3)
AGAIN = Retry(first_pause=0)
SIZE = {"width": 8, "height": 6}


def at(*ports: int) -> list[str]:
    return [f"127.0.0.1:{port}" for port in ports]


def test_calls_go_to_all_servers_and_the_result_names_the_one(make_client: MakeClient, serve: Serve) -> None:
    servers = serve(every), serve(every)
    client = make_client(servers=at(*(server.port for server in servers)), retry=AGAIN)
    answered = {client.call("resize", b"image", **SIZE).server for _ in range(40)}
    assert answered == set(at(*(server.port for server in servers)))


def test_a_server_that_refuses_is_left_out_and_no_call_fails(make_client: MakeClient, serve: Serve) -> None:
    server = serve(every)
    client = make_client(servers=at(unused_port(), server.port), retry=AGAIN)
    results = [client.call("resize", b"image", **SIZE) for _ in range(20)]
    assert {result.server for result in results} == set(at(server.port))
    assert sum(result.attempts > 1 for result in results) <= 1, "only the first attempt there is made"


def test_a_call_that_could_not_connect_goes_elsewhere_without_retries(
    make_client: MakeClient, serve: Serve
) -> None:
    server = serve(every)
    client = make_client(servers=at(unused_port(), unused_port(), server.port), retry=Retry.none())
    results = [client.call("resize", b"image", **SIZE) for _ in range(10)]
    assert {result.server for result in results} == set(at(server.port))


def test_a_server_that_drains_is_left_out(make_client: MakeClient, serve: Serve) -> None:
    def drain(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Draining("bye"))
        peer.read_to_end()

    draining, server = serve(drain, drain, drain), serve(every)
    client = make_client(servers=at(draining.port, server.port), retry=AGAIN)
    results = [client.call("resize", b"image", **SIZE) for _ in range(20)]
    assert {result.server for result in results} == set(at(server.port))


def test_a_server_that_is_about_to_stop_is_left_out(make_client: MakeClient, serve: Serve) -> None:
    def leave(peer: Peer) -> None:
        head, _ = peer.read_request()
        if head.kind == Kind.PING:
            peer.refuse(head, Draining("soon"))
        else:
            peer.reply(head, closing=True)
        peer.read_to_end()

    leaving, server = serve(*[leave] * 8), serve(every)
    client = make_client(servers=at(leaving.port, server.port), retry=Retry.none())
    answered = [client.call("resize", b"image", **SIZE).server for _ in range(40)]
    assert [answered.count(one) for one in at(leaving.port, server.port)] == [1, 39]


def test_the_calls_of_a_server_that_hangs_are_sent_elsewhere(make_client: MakeClient, serve: Serve) -> None:
    hung, server = serve(silent, silent, silent, silent), serve(every)
    client = make_client(servers=at(hung.port, server.port), timeout=IMPATIENT, retry=AGAIN)
    calls = [client.submit("resize", b"image", **SIZE) for _ in range(12)]
    results = [call.result(30) for call in calls]
    assert {result.server for result in results} == set(at(server.port))
    assert max(result.attempts for result in results) == 2
    assert hung.connections >= 1


def test_a_large_image_for_a_server_that_hangs_is_sent_elsewhere(
    make_client: MakeClient, serve: Serve
) -> None:
    def accept_nothing(_peer: Peer) -> None:
        over.wait(30)

    def answer(peer: Peer) -> None:
        while (head := peer.read_head()) is not None:
            peer.read_body()
            peer.reply(head)

    over = threading.Event()
    hung, server = serve(*[accept_nothing] * 8), serve(*[answer] * 8)
    client = make_client(servers=at(hung.port, server.port), timeout=IMPATIENT, retry=AGAIN)
    image = bytes(LARGE)
    try:
        calls = [client.submit("resize", image, **SIZE) for _ in range(4)]
        assert {call.result(60).server for call in calls} == set(at(server.port))
    finally:
        over.set()


def test_a_server_that_works_for_long_is_asked_and_not_given_up(
    make_client: MakeClient, serve: Serve
) -> None:
    def slow(peer: Peer) -> None:
        head, _ = peer.read_request()
        for _ in range(3):
            ping, _ = peer.read_request()
            assert ping.kind == Kind.PING
            peer.reply(ping)
        peer.reply(head)

    client = make_client(port=serve(slow).port, timeout=Timeout(ping=20.0), retry=Retry.none())
    assert client.call("resize", b"image", **SIZE).attempts == 1


def test_a_single_server_that_hangs_is_given_up(make_client: MakeClient, serve: Serve) -> None:
    client = make_client(port=serve(silent).port, timeout=IMPATIENT, retry=Retry.none())
    with pytest.raises(ClientTimeout, match=r"has been silent and has not answered a PING within 0\.3 s"):
        client.call("resize", b"image", **SIZE)


def test_without_retries_a_server_is_not_asked(make_client: MakeClient, serve: Serve) -> None:
    def slow(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.settimeout(ASK_AFTER + 0.3)
        with pytest.raises(TimeoutError):
            peer.read_request()
        peer.reply(head)

    client = make_client(port=serve(slow).port, retry=Retry.none())
    assert client.call("resize", b"image", **SIZE).attempts == 1


def test_a_connection_that_is_heard_outlives_the_one_that_is_not(
    make_client: MakeClient, serve: Serve
) -> None:
    begun, asked, heard, over = (threading.Event() for _ in range(4))

    def accept_nothing_more(peer: Peer) -> None:
        peer.socket.recv(1)
        begun.set()
        over.wait(30)

    def answer_pings(peer: Peer) -> None:
        head, _ = peer.read_request()
        while not over.is_set():
            ping, _ = peer.read_request()
            was_asked = asked.is_set()
            peer.reply(ping)
            if was_asked:
                heard.set()
        peer.reply(head)

    def refuse_the_question(_peer: Peer) -> None:
        asked.set()
        heard.wait(30)

    server = serve(accept_nothing_more, answer_pings, refuse_the_question)
    client = make_client(
        port=server.port, connections=2, timeout=Timeout(ping=5.0), retry=Retry.none(), resumable_from=None
    )
    try:
        large = client.submit("resize", bytes(LARGE), **SIZE)
        assert begun.wait(30)
        small = client.submit("resize", b"image", **SIZE)
        with pytest.raises(ClientTimeout, match=r"does not work any more: the connection to .* was lost"):
            large.result(30)
    finally:
        over.set()
    assert small.result(30).attempts == 1


def test_without_ping_only_the_reply_timeout_ends_the_call(make_client: MakeClient, serve: Serve) -> None:
    patient = Timeout(ping=None, reply=1.0)
    client = make_client(port=serve(silent).port, timeout=patient, retry=Retry.none())
    with pytest.raises(ClientTimeout, match=r"has not answered within 1\.0 s"):
        client.call("resize", b"image", **SIZE)


def test_the_error_names_each_server_with_its_reason(make_client: MakeClient) -> None:
    ports = unused_port(), unused_port()
    client = make_client(servers=at(*ports), retry=Retry(attempts=4, first_pause=0, patience=0))
    with pytest.raises(ConnectFailed) as caught:
        client.call("resize", b"image", **SIZE)
    for address in at(*ports):
        assert f"{address}: no connection to {address}: connection refused" in str(caught.value)


def test_a_name_stands_for_all_its_addresses(make_client: MakeClient, serve: Serve) -> None:
    asked = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return ["127.0.0.2", "127.0.0.1"]

    server = serve(every)  # listens at 127.0.0.1 only
    client = make_client(servers=[f"images.example:{server.port}"], resolver=resolver, retry=AGAIN)
    results = [client.call("resize", b"image", **SIZE) for _ in range(10)]
    assert {result.server for result in results} == set(at(server.port))
    assert asked[0] == ("images.example", server.port)


def test_a_name_that_cannot_be_resolved(make_client: MakeClient) -> None:
    def resolver(host: str, _port: int) -> Sequence[str]:
        raise OSError(f"no such name: {host}")

    client = make_client(servers=["images.example:1"], resolver=resolver, retry=Retry.none())
    with pytest.raises(ConnectFailed, match=r"images\.example:1: no such name: images\.example"):
        client.call("resize", b"image", **SIZE)


def test_an_address_that_no_name_stands_for_loses_its_connection(
    make_client: MakeClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipsrv.client.server_names.RESOLVE_EVERY", 0.0)
    closed, hosts = threading.Event(), ["127.0.0.1"]

    def answer_to_the_end(peer: Peer) -> None:
        every(peer)
        closed.set()

    leaving, staying = serve(answer_to_the_end), serve(every)
    client = make_client(
        servers=[f"images.example:{leaving.port}", *at(staying.port)],
        resolver=lambda _host, _port: hosts,
        retry=AGAIN,
    )
    while client.call("resize", b"image", **SIZE).server == at(staying.port)[0]:
        pass
    hosts[:] = ["127.0.0.2"]
    for _ in range(3000):
        client.call("resize", b"image", **SIZE)
        if closed.wait(0.01):
            break
    assert client.call("resize", b"image", **SIZE).server == at(staying.port)[0]
    assert leaving.connections == 1


def test_several_connections_to_one_server(make_client: MakeClient, serve: Serve) -> None:
    together = threading.Barrier(3)

    def wait_for_the_others(peer: Peer) -> None:
        while (head := peer.read_head()) is not None:
            body = peer.read_body()
            together.wait(30)
            peer.reply(head, body=body)

    server = serve(*[wait_for_the_others] * 3)
    client = make_client(servers=at(server.port), connections=3, timeout=Timeout(ping=None))
    calls = [client.submit("resize", b"image", **SIZE) for _ in range(3)]
    assert all(call.result(60) for call in calls)
    assert server.connections == 3


def test_the_environment_names_servers(
    make_client: MakeClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(every)
    monkeypatch.setenv("VIPSRV_SERVERS", f"127.0.0.1:{unused_port()},127.0.0.1:{server.port}")
    assert make_client(retry=AGAIN).call("resize", b"image", **SIZE).server == at(server.port)[0]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_impossible_arguments(kind: type[Client | AsyncClient]) -> None:
    with pytest.raises(ValueError, match="servers: replaces host, port and address"):
        kind(port=1, servers=["a:1"])
    with pytest.raises(ValueError, match="servers: 'http://a:1' is an address for HTTP"):
        kind(servers=["http://a:1"])
    with pytest.raises(ValueError, match="connections: must be a whole number from 1 to 1000, not 0"):
        kind(servers=["a:1"], connections=0)
    with pytest.raises(ValueError, match="ca: needs TLS"):
        kind(servers=["a:1", "b:1"], ca="ca.pem")


def test_the_addresses_of_a_client() -> None:
    assert Client(servers=["127.0.0.1:1", "unix:/x"]).servers == ("127.0.0.1:1", "unix:/x")
    assert Client("a", 1).servers == ("a:1",)
