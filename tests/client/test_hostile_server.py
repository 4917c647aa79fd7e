"""A server that has turned against its clients: forged text, formats and sizes."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SIZE, Peer, every
from vipsrv.errors import REQUEST_ERRORS, ConnectionLost, ProtocolError, RequestError
from vipsrv.options import ResizeOptions
from vipsrv.protocol import REPLY, Kind, MessageStarted, pack_error, pack_message

HOSTILE = "\x1b]52;c;Z2V0\x07\r\n\u202egnp.exe\u2066\x9b2J\udcff"
SHOWN = r"\x1b]52;c;Z2V0\x07\r\n\u202egnp.exe\u2066\x9b2J\xff"


def replying(make: Callable[[MessageStarted], bytes]) -> Callable[[Peer], None]:
    """A script that sends these bytes as the reply to one request."""

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        with suppress(ConnectionError):  # a client that refuses the reply does not read all of it
            peer.socket.sendall(make(head))
            peer.read_to_end()

    return script


def answer(head: MessageStarted, meta: dict[str, Any] | bytes = b"", body: bytes = b"") -> bytes:
    return pack_message(head.kind | REPLY, head.request_id, meta, status=200, body_size=len(body)) + body


@pytest.mark.parametrize("error", REQUEST_ERRORS.values(), ids=lambda error: error.code)
def test_the_message_of_an_error_is_printable(
    make_client: MakeClient, serve: Serve, error: type[RequestError]
) -> None:
    client = make_client(
        port=serve(replying(lambda head: pack_error(head.kind, head.request_id, error(HOSTILE)))).port
    )
    with pytest.raises(error) as caught:
        client.call("resize", b"image", **SIZE)
    assert caught.value.message == str(caught.value) == SHOWN


@pytest.mark.parametrize("protocol", [1, 2])
def test_an_error_of_the_connection_is_printable(
    make_client: MakeClient, serve: Serve, protocol: int
) -> None:
    reply = pack_message(Kind.RESIZE | REPLY, 0, {"message": HOSTILE}, status=599)
    client = make_client(port=serve(replying(lambda _: reply)).port, protocol=protocol)
    with pytest.raises(RequestError) as caught:
        client.call("resize", b"image", **SIZE)
    assert str(caught.value) == f"status 599: {SHOWN}"


def test_what_a_server_states_about_itself_is_printable(make_client: MakeClient, serve: Serve) -> None:
    meta = {
        "server": HOSTILE,
        "limits": {"max_upload": 5},
        "formats": {"in": [HOSTILE], "out": [HOSTILE, "jpeg"]},
        "fits": [HOSTILE],
    }
    info = make_client(port=serve(replying(lambda head: answer(head, meta))).port).call("hello")
    assert (info.name, info.reads, info.writes, info.fits) == (SHOWN, (SHOWN,), (SHOWN, "jpeg"), (SHOWN,))
    assert info.limits.max_upload == 5


@pytest.mark.parametrize(
    "replaced",
    [
        {"server": {"name": HOSTILE}},
        {"limits": {"max_upload": HOSTILE}},
        {"limits": {"max_upload": -1}},
        {"limits": {"deadline_ms": 2**63}},
        {"limits": {"max_pixels": [1]}},
        {"limits": {"max_pixels": True}},
        {"formats": {"in": [1], "out": []}},
        {"fits": {"fill": 1}},
    ],
)
def test_what_a_server_states_about_itself_has_the_right_types(
    make_client: MakeClient, serve: Serve, replaced: dict[str, Any]
) -> None:
    meta: dict[str, Any] = {"server": "x", "limits": {}, "formats": {"in": [], "out": []}, "fits": []}
    server = serve(replying(lambda head: answer(head, meta | replaced)))
    with pytest.raises(ProtocolError, match="the reply to HELLO is invalid") as caught:
        make_client(port=server.port).call("hello")
    assert str(caught.value).isprintable()


def test_what_a_server_states_about_an_image_is_printable(make_client: MakeClient, serve: Serve) -> None:
    source = {
        "format": HOSTILE,
        "width": 1,
        "height": 1,
        "pages": 1,
        "has_alpha": False,
        "orientation": 1,
        "size": 5,
    }
    client = make_client(port=serve(replying(lambda head: answer(head, {"source": source}))).port)
    assert client.call("info", b"image").format == SHOWN


@pytest.mark.parametrize("format_", [HOSTILE, "../../etc/cron", "png", "exe", ""])
def test_a_result_of_a_format_that_was_not_asked_for_is_refused(
    make_client: MakeClient, serve: Serve, format_: str
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.reply(head, outputs=[{"width": 8, "height": 6, "format": format_, "quality": 85, "size": 6}])

    with pytest.raises(ProtocolError, match=r"as the format of a result|for a result in jpeg") as caught:
        make_client(port=serve(script).port).call("resize", b"image", **SIZE)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "garbage", [b"{" + HOSTILE.encode(errors="replace"), b'{"a": "\xff\x1b"}', b"[" * 60_000]
)
def test_an_error_about_a_meta_that_is_not_json_is_printable(
    make_client: MakeClient, serve: Serve, garbage: bytes
) -> None:
    client = make_client(port=serve(replying(lambda head: answer(head, garbage))).port)
    with pytest.raises(ProtocolError, match="the meta") as caught:
        client.call("ping")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    ("limit", "announced", "allowed"),
    [({}, 2**32 - 1, 1_052_672), ({"max_reply_size": 1000}, 1001, 1000)],
    ids=["by what was asked", "by the caller"],
)
def test_a_reply_over_its_bound_is_refused_before_it_arrives(
    make_client: MakeClient,
    serve: Serve,
    protocol: int,
    limit: dict[str, int],
    announced: int,
    allowed: int,
) -> None:
    def large(head: MessageStarted) -> bytes:
        if protocol == 1:
            return struct.pack("!I", announced)
        return pack_message(head.kind | REPLY, head.request_id, status=200, body_size=announced)

    server = serve(replying(large))
    client = make_client(port=server.port, protocol=protocol, **limit)
    with pytest.raises(ProtocolError, match=f"{announced} bytes; {allowed} are allowed"):
        client.call("resize", b"image", **SIZE)


def test_a_result_over_the_bytes_that_were_asked_for_is_refused(
    make_client: MakeClient, serve: Serve
) -> None:
    server = serve(replying(lambda head: answer(head, body=bytes(101))))
    with pytest.raises(ProtocolError, match="101 bytes; 100 are allowed"):
        make_client(port=server.port).call("resize", b"image", **SIZE, max_bytes=100)


def test_results_of_several_outputs_are_bounded_together(make_client: MakeClient, serve: Serve) -> None:
    server = serve(replying(lambda head: answer(head, body=bytes(31))))
    outputs = [ResizeOptions(width=8, height=6, max_bytes=size) for size in (10, 20)]
    with pytest.raises(ProtocolError, match="31 bytes; 30 are allowed"):
        make_client(port=server.port).call("resize_all", b"image", outputs)


@pytest.mark.parametrize("method", ["ping", "hello"])
def test_a_body_where_none_belongs_is_refused(make_client: MakeClient, serve: Serve, method: str) -> None:
    server = serve(replying(lambda head: answer(head, body=b"x")))
    with pytest.raises(ProtocolError, match="1 bytes; 0 are allowed"):
        make_client(port=server.port).call(method)


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_large_reply_that_is_announced_and_not_sent_costs_nothing(
    make_client: MakeClient, serve: Serve, protocol: int
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        if protocol == 1:
            peer.socket.sendall(struct.pack("!I", 2**30))
        else:
            peer.socket.sendall(pack_message(head.kind | REPLY, head.request_id, status=200, body_size=2**30))
        peer.socket.sendall(b"only this")

    before = resident()
    client = make_client(port=serve(script).port, protocol=protocol)
    with pytest.raises(ConnectionLost, match="before the reply was complete"):
        client.call("resize", b"image", width=20_000, height=20_000)
    assert resident() - before < 2**28


def resident() -> int:
    """The most memory that this process has had so far, in bytes."""
    resource = pytest.importorskip("resource", reason="this system does not measure memory")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_bound_that_is_no_number_of_bytes_is_refused(make_client: MakeClient, size: object) -> None:
    with pytest.raises(ValueError, match="max_reply_size: must be a whole number of bytes from 1"):
        make_client(port=1, max_reply_size=size)


def test_a_forged_reply_costs_only_its_own_connection(make_client: MakeClient, serve: Serve) -> None:
    server = serve(replying(lambda head: answer(head, body=bytes(2**21))), every)
    client = make_client(port=server.port)
    with pytest.raises(ProtocolError):
        client.call("resize", b"image", **SIZE)
    assert client.call("resize", b"image", **SIZE).data == b"image"


def test_a_result_is_saved_under_the_name_that_the_caller_chose(
    make_client: MakeClient, serve: Serve, tmp_path: Path
) -> None:
    result = make_client(port=serve(every).port).call("resize", b"image", **SIZE, format="auto")
    victim, name = tmp_path / "victim", tmp_path / "processed.jpg"
    victim.write_bytes(b"untouched")
    name.symlink_to(victim)
    result.save(name, follow_symlinks=False)
    assert (victim.read_bytes(), name.read_bytes()) == (b"untouched", b"image")
    assert not name.is_symlink()
