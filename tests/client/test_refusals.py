"""Both clients with servers that refuse requests or speak another protocol."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import LARGE, SECONDS, SIZE, Peer, every, one
from vipsrv.client.core import FINISH_IF_LEFT
from vipsrv.errors import (
    REQUEST_ERRORS,
    Busy,
    ConnectionLost,
    Draining,
    InternalError,
    ProtocolError,
    RequestError,
    TooLarge,
)
from vipsrv.protocol import REPLY, Kind, pack_error, pack_message

# Refusals


@pytest.mark.parametrize("kind", REQUEST_ERRORS.values(), ids=lambda kind: kind.code)
def test_each_code_of_the_wire_is_raised_as_its_class(
    make_client: MakeClient, serve: Serve, kind: type[RequestError]
) -> None:
    def script(peer: Peer) -> None:
        while (head := peer.read_head()) is not None:
            peer.read_body()
            peer.refuse(head, kind("a reason", retry_after_ms=1500))

    server = serve(script, script)
    client = make_client(port=server.port)
    for method, arguments in (("resize", SIZE), ("info", {})):
        with pytest.raises(kind, match="a reason") as caught:
            client.call(method, b"image", **arguments)
        assert type(caught.value) is kind
        assert caught.value.retry_after_ms == 1500


def test_an_unknown_status_is_an_internal_error_that_names_it(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.sendall(pack_message(head.kind | REPLY, head.request_id, {"message": "tea"}, status=418))

    server = serve(script)
    with pytest.raises(InternalError, match="status 418: tea"):
        make_client(port=server.port).call("resize", b"image", **SIZE)


def test_a_version_1_refusal_is_raised_as_its_class(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, TooLarge("too many pixels"))

    server = serve(script)
    with pytest.raises(TooLarge, match="too many pixels"):
        make_client(port=server.port, protocol=1).call("resize", b"image", **SIZE)


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("from_file", [False, True], ids=["memory", "file"])
def test_an_early_refusal_stops_the_upload(
    make_client: MakeClient, serve: Serve, tmp_path: Path, protocol: int, *, from_file: bool
) -> None:
    raised = threading.Event()

    def script(peer: Peer) -> None:
        head = peer.read_head()
        assert head is not None
        peer.refuse(head, TooLarge("over the limit"))
        # Nothing is read until the client has stopped sending, so it cannot have sent everything before.
        assert raised.wait(SECONDS)
        assert peer.read_to_end() < LARGE

    image: bytes | Path = bytes(LARGE)
    if from_file:
        image = tmp_path / "large"
        with image.open("wb") as file:
            file.truncate(LARGE)
    server = serve(script)
    client = make_client(port=server.port, protocol=protocol)
    with pytest.raises(TooLarge, match="over the limit"):
        client.call("resize", image, **SIZE)
    raised.set()


def test_a_refused_upload_with_little_left_keeps_the_connection(
    make_client: MakeClient, serve: Serve
) -> None:
    def script(peer: Peer) -> None:
        head = peer.read_head()
        assert head is not None
        peer.refuse(head, Busy("come back", retry_after_ms=10))
        peer.read_body()
        every(peer)

    server = serve(script)
    client = make_client(port=server.port)
    with pytest.raises(Busy):
        client.call("resize", bytes(FINISH_IF_LEFT), **SIZE)
    assert client.call("resize", b"image", **SIZE).data == b"image"
    assert server.connections == 1


def test_an_abandoned_upload_leaves_the_replies_of_others(make_client: MakeClient, serve: Serve) -> None:
    first_is_there, refused = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        first, _ = peer.read_request()
        first_is_there.set()
        second = peer.read_head()
        assert second is not None
        peer.refuse(second, TooLarge("over the limit"))
        # A server goes on reading for a while; here until the client closes, when no reply is due any more.
        lingering = threading.Thread(target=peer.read_to_end)
        lingering.start()
        assert refused.wait(SECONDS)
        peer.reply(first, body=b"late")
        lingering.join(SECONDS)
        assert not lingering.is_alive()

    server = serve(script, every)
    client = make_client(port=server.port)
    small = client.submit("resize", b"small", **SIZE)
    assert first_is_there.wait(SECONDS)
    large = client.submit("resize", bytes(LARGE), **SIZE)
    with pytest.raises(TooLarge):
        large.result(SECONDS)
    third = client.call("resize", b"third", **SIZE)
    refused.set()
    assert small.result(SECONDS).data == b"late"
    assert third.data == b"third"
    assert server.connections == 2


def test_an_error_without_a_request_fails_every_request(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.read_request()
        peer.socket.sendall(pack_error(Kind.RESIZE, 0, Draining("shutting down")))

    server = serve(script)
    client = make_client(port=server.port)
    calls = [client.submit("resize", b"image", **SIZE) for _ in range(2)]
    errors = [call.exception(SECONDS) for call in calls]
    assert [type(error) for error in errors] == [Draining, Draining]
    assert errors[0] is not errors[1]


# Servers that speak something else


@pytest.mark.parametrize(
    "garbage", [b"GARBAGE" * 20, bytes(100), b"\xff" * 100], ids=["text", "zeros", "ones"]
)
def test_garbage_is_a_protocol_error_and_the_next_call_works(
    make_client: MakeClient, serve: Serve, garbage: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(garbage)
        peer.read_to_end()

    server = serve(script, every)
    client = make_client(port=server.port)
    with pytest.raises(ProtocolError, match=rf"127\.0\.0\.1:{server.port} sent something that is not"):
        client.call("resize", b"image", **SIZE)
    assert client.call("resize", b"image", **SIZE).data == b"image"


def test_an_http_server_is_named_as_such(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.read_to_end()

    server = serve(script)
    with pytest.raises(ProtocolError, match=rf"127\.0\.0\.1:{server.port} speaks HTTP"):
        make_client(port=server.port).call("resize", b"image", **SIZE)


def test_a_server_that_speaks_first(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.socket.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
        peer.read_to_end()

    server = serve(script)
    with pytest.raises(ProtocolError, match="replied in version 1"):
        make_client(port=server.port).call("resize", b"image", **SIZE)
    assert server.connections == 1


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_server_that_closes_at_once(make_client: MakeClient, serve: Serve, protocol: int) -> None:
    server = serve(lambda _peer: None)
    with pytest.raises(ConnectionLost):
        make_client(port=server.port, protocol=protocol).call("resize", b"image", **SIZE)
    assert server.connections == 1


def test_a_version_1_reply_to_version_2_is_a_protocol_error(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.reply_v1()

    server = serve(script)
    with pytest.raises(ProtocolError, match="replied in version 1"):
        make_client(port=server.port).call("resize", b"image", **SIZE)


def test_a_version_2_result_to_version_1_is_a_protocol_error(make_client: MakeClient, serve: Serve) -> None:
    server = serve(one)
    with pytest.raises(ProtocolError, match="replied in version 2"):
        make_client(port=server.port, protocol=1).call("resize", b"image", **SIZE)


def test_a_reply_to_an_unknown_request_is_a_protocol_error(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.sendall(pack_message(head.kind | REPLY, head.request_id + 7, status=200))

    server = serve(script)
    with pytest.raises(ProtocolError, match="which was never sent"):
        make_client(port=server.port).call("ping")


def test_a_reply_of_another_kind_is_a_protocol_error(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.sendall(pack_message(Kind.PING | REPLY, head.request_id, status=200))

    server = serve(script)
    with pytest.raises(ProtocolError, match="to a RESIZE"):
        make_client(port=server.port).call("resize", b"image", **SIZE)


@pytest.mark.parametrize(
    ("method", "arguments", "meta"),
    [
        ("resize", SIZE, {"outputs": []}),
        ("resize", SIZE, {"outputs": 3}),
        ("resize", SIZE, {"ms": {"total": 1}}),
        ("resize", SIZE, {"ratio": "much"}),
        ("resize", SIZE, {"source": {"format": "jpeg"}}),
        ("info", {}, {"source": None}),
        ("hello", None, {"server": "x"}),
        ("hello", None, {"server": "x", "limits": [], "formats": {"in": [], "out": []}, "fits": []}),
        ("hello", None, {"server": "x", "limits": {}, "formats": {"in": 1, "out": []}, "fits": []}),
    ],
)
def test_an_invalid_meta_is_a_protocol_error(
    make_client: MakeClient,
    serve: Serve,
    method: str,
    arguments: dict[str, int] | None,
    meta: dict[str, Any],
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, **meta)

    client = make_client(port=serve(script).port)
    with pytest.raises(ProtocolError, match="is invalid"):
        client.call(method, *([] if arguments is None else [b"image"]), **(arguments or {}))


def test_a_result_of_another_size_than_announced_is_a_protocol_error(
    make_client: MakeClient, serve: Serve
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        output = {"width": 8, "height": 6, "format": "jpeg", "quality": 85, "size": 99}
        peer.reply(head, body=b"short", outputs=[output])

    server = serve(script)
    with pytest.raises(ProtocolError, match="announced 99 bytes"):
        make_client(port=server.port).call("resize", b"image", **SIZE)


def test_a_version_1_server_that_closes_without_a_reply(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        assert peer.socket.recv(12)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.read_to_end()

    server = serve(script)
    with pytest.raises(ConnectionLost, match="if it speaks version 1 only, use Version1Client"):
        make_client(port=server.port).call("resize", bytes(LARGE), **SIZE)
