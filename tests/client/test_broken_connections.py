"""Both clients when a connection cannot be made, breaks, stalls or is given up."""

import errno
import io
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import LARGE, SECONDS, SIZE, Peer, Script, every, one, silent
from vipsrv.client import Client, Retry, Timeout
from vipsrv.client.blocking_connection import FIRST_PIECE_SIZE, BlockingConnection
from vipsrv.client.core import PendingRequest
from vipsrv.client.requests import ClientRequest
from vipsrv.errors import (
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
)
from vipsrv.protocol import REPLY, Kind, pack_message

# Connections that break


def test_connection_refused(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = make_client(port=port)
    for _ in range(2):
        with pytest.raises(ConnectFailed, match=rf"no connection to 127\.0\.0\.1:{port}: .*refused"):
            client.call("resize", b"image", **SIZE)


@pytest.mark.parametrize("host", ["no such host", "a" * 300, "a..b"])
def test_an_invalid_host(make_client: MakeClient, host: str) -> None:
    with pytest.raises(ConnectFailed, match="no connection to"):
        make_client(host, 1).call("ping")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
def test_no_such_unix_socket(make_client: MakeClient, tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed, match=r"unix:.*No such file"):
        make_client(address=f"unix:{tmp_path / 'socket'}").call("ping")


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("part", [2, 10, 40, -1])
def test_a_connection_lost_within_the_reply(
    make_client: MakeClient, serve: Serve, protocol: int, part: int
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        if protocol == 1:
            reply = struct.pack("!I", 60) + bytes(60)
        else:
            reply = pack_message(head.kind | REPLY, head.request_id, {"ratio": 1}, status=200, body_size=60)
            reply += bytes(60)
        peer.socket.sendall(reply[:part])

    server = serve(script)
    with pytest.raises(ConnectionLost, match="before the reply was complete"):
        make_client(port=server.port, protocol=protocol).call("resize", b"image", **SIZE)


def test_after_a_lost_connection_the_next_call_has_a_new_one(make_client: MakeClient, serve: Serve) -> None:
    def breaks(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.socket.sendall(pack_message(head.kind | REPLY, head.request_id, status=200, body_size=9))

    server = serve(breaks, every)
    client = make_client(port=server.port)
    with pytest.raises(ConnectionLost):
        client.call("resize", b"image", **SIZE)
    assert client.call("resize", b"image", **SIZE).data == b"image"


def test_a_connection_reset_while_it_is_sent(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        assert peer.read_head() is not None
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server = serve(script)
    with pytest.raises(ConnectionLost, match="the connection to"):
        make_client(port=server.port).call("resize", bytes(LARGE), **SIZE)


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile")
@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETDOWN, errno.ETIMEDOUT])
def test_a_network_error_during_sendfile_is_a_lost_connection(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unreachable(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "sendfile", unreachable)

    def takes_the_head(peer: Peer) -> None:
        assert peer.read_head() is not None

    image = tmp_path / "image"
    image.write_bytes(bytes(FIRST_PIECE_SIZE + 1))
    server = serve(takes_the_head)
    once = Retry.none()
    with pytest.raises(ConnectionLost), Client(port=server.port, retry=once) as client:
        client.resize(image, width=8, height=6)


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile")
def test_a_file_error_during_sendfile_is_raised(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(socket.socket, "sendfile", unreadable)
    image = tmp_path / "image"
    image.write_bytes(bytes(FIRST_PIECE_SIZE + 1))
    server = serve(silent)
    with Client(port=server.port) as client, pytest.raises(OSError, match="Input/output error"):
        client.resize(image, width=8, height=6)


def test_an_idle_connection_closed_by_the_server_is_replaced(make_client: MakeClient, serve: Serve) -> None:
    server = serve(one, one, one)
    client = make_client(port=server.port)
    for _ in range(3):
        assert client.call("resize", b"image", **SIZE).data == b"result"


@pytest.mark.parametrize("size", [5, 700_000])
def test_a_request_sent_while_the_server_closed_an_idle_connection_is_resent(
    make_client: MakeClient, serve: Serve, tmp_path: Path, size: int
) -> None:
    def answers_then_closes_on_the_next(peer: Peer) -> None:
        one(peer)
        peer.read_request()

    image = os.urandom(size)
    path = tmp_path / "image"
    path.write_bytes(image)
    server = serve(answers_then_closes_on_the_next, every)
    client = make_client(port=server.port)
    client.call("ping")
    assert client.call("resize", path, **SIZE).data == image
    assert server.connections == 2


def test_a_request_is_resent_only_once(make_client: MakeClient, serve: Serve) -> None:
    def answers_then_closes_on_the_next(peer: Peer) -> None:
        one(peer)
        peer.read_request()

    def closes(peer: Peer) -> None:
        peer.read_request()

    server = serve(answers_then_closes_on_the_next, closes)
    client = make_client(port=server.port)
    client.call("ping")
    with pytest.raises(ConnectionLost):
        client.call("ping")
    assert server.connections == 2


def test_a_request_lost_beside_another_is_not_resent(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        one(peer)
        first, _ = peer.read_request()
        peer.read_request()
        peer.reply(first)

    server = serve(script)
    client = make_client(port=server.port)
    client.call("ping")
    calls = [client.submit("resize", b"image", **SIZE) for _ in range(2)]
    outcomes = {type(call.exception(SECONDS)) for call in calls}
    assert outcomes == {type(None), ConnectionLost}


class Announced(io.BytesIO):
    """An image that sets an event when a call starts to use it."""

    def __init__(self, data: bytes, begun: threading.Event) -> None:
        super().__init__(data)
        self._begun = begun

    def tell(self) -> int:
        self._begun.set()
        return super().tell()


def _takes_no_more(is_there: threading.Event, given_up: threading.Event, *, warm: bool) -> Script:
    """Answers a PING if ``warm``, then reads the head of a request and nothing more until it is abandoned."""

    def script(peer: Peer) -> None:
        if warm:
            one(peer)
        assert peer.read_head() is not None
        is_there.set()
        assert given_up.wait(SECONDS)
        peer.read_to_end()

    return script


@pytest.mark.parametrize("warm", [False, True])
def test_cancelling_an_upload_does_not_fail_the_call_behind_it(
    make_client: MakeClient, serve: Serve, *, warm: bool
) -> None:
    is_there, begun, given_up = threading.Event(), threading.Event(), threading.Event()
    server = serve(_takes_no_more(is_there, given_up, warm=warm), every)
    client = make_client(port=server.port)
    if not client.cancels:
        pytest.skip("a thread cannot be cancelled")
    if warm:
        client.call("ping")
    large = client.submit("resize", bytes(LARGE), **SIZE)
    assert is_there.wait(SECONDS)
    small = client.submit("resize", Announced(b"small", begun), **SIZE)
    assert begun.wait(SECONDS)
    assert large.cancel()
    assert small.result(SECONDS).data == b"small"
    given_up.set()
    assert server.connections == 2


class GivenUp(Exception):
    pass


@pytest.mark.parametrize("warm", [False, True])
def test_abandoning_an_upload_does_not_fail_a_thread_that_comes_late(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, *, warm: bool
) -> None:
    is_there, waits, given_up = threading.Event(), threading.Event(), threading.Event()
    begin = BlockingConnection._begin

    def begin_late(
        connection: BlockingConnection,
        request: ClientRequest,
        size: int,
        on_done: Callable[[], None],
        until: float | None,
    ) -> PendingRequest | None:
        if size == len(b"small") and not waits.is_set():
            waits.set()
            with connection._state:
                assert connection._state.wait_for(lambda: connection._core.closed, SECONDS)
        return begin(connection, request, size, on_done, until)

    def give_up(sent: int) -> None:
        assert sent
        assert waits.wait(SECONDS)
        raise GivenUp

    monkeypatch.setattr(BlockingConnection, "_begin", begin_late)
    server = serve(_takes_no_more(is_there, given_up, warm=warm), every)
    with Client(port=server.port, resumable_from=None) as client, ThreadPoolExecutor() as threads:
        if warm:
            client.ping()
        large = threads.submit(lambda: client.resize(bytes(LARGE), on_sent=give_up, width=8, height=6))
        assert is_there.wait(SECONDS)
        small = threads.submit(lambda: client.resize(b"small", width=8, height=6))
        with pytest.raises(GivenUp):
            large.result(SECONDS)
        given_up.set()
        assert small.result(SECONDS).data == b"small"
    assert server.connections == 2


def test_a_server_that_always_closes_is_tried_once(make_client: MakeClient, serve: Serve) -> None:
    server = serve(lambda _: None)
    with pytest.raises(ConnectionLost):
        make_client(port=server.port).call("resize", b"image", **SIZE)
    assert server.connections == 1


def test_close_ends_requests_on_a_connection_used_before(make_client: MakeClient, serve: Serve) -> None:
    is_there = threading.Event()

    def script(peer: Peer) -> None:
        one(peer)
        peer.read_request()
        is_there.set()
        peer.read_to_end()

    server = serve(script)
    client = make_client(port=server.port)
    client.call("ping")
    call = client.submit("resize", b"image", **SIZE)
    assert is_there.wait(SECONDS)
    client.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        call.result(SECONDS)


# Timeouts


def test_a_reply_timeout_cancels_the_request(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        cancel, _ = peer.read_request()
        assert cancel.kind == Kind.CANCEL
        assert cancel.meta == {"request_id": head.request_id}
        # Both late: the reply, and the reply to the CANCEL. Neither may be taken for that of another request.
        peer.reply(head, body=b"late")
        peer.reply(cancel, cancelled=False)
        every(peer)

    server = serve(script)
    timeout = Timeout(reply=0.1)
    client = make_client(port=server.port, timeout=timeout)
    with pytest.raises(ClientTimeout, match=r"has not answered within 0\.1 s"):
        client.call("resize", b"image", **SIZE)
    object.__setattr__(timeout, "reply", SECONDS)  # the rest must not depend on the speed of the machine
    assert client.call("resize", b"image", **SIZE).data == b"image"
    assert server.connections == 1


def test_version_1_times_out_by_closing(make_client: MakeClient, serve: Serve) -> None:
    server = serve(silent)
    with pytest.raises(ClientTimeout, match="has not answered"):
        make_client(port=server.port, protocol=1, timeout=Timeout(reply=0.1)).call("resize", b"image", **SIZE)


@pytest.mark.parametrize("from_file", [False, True], ids=["memory", "file"])
def test_a_server_that_stops_reading(
    make_client: MakeClient, serve: Serve, tmp_path: Path, *, from_file: bool
) -> None:
    raised = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.read_head() is not None
        assert raised.wait(SECONDS)

    image: bytes | Path = bytes(LARGE)
    if from_file:
        image = tmp_path / "large"
        with image.open("wb") as file:
            file.truncate(LARGE)
    server = serve(script)
    client = make_client(port=server.port, timeout=Timeout(send=0.1))
    with pytest.raises(ClientTimeout, match=r"has not accepted any of the request for 0\.1 s"):
        client.call("resize", image, **SIZE)
    raised.set()


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog refuses on other systems")
def test_a_server_that_does_not_accept(make_client: MakeClient) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with pytest.raises(ClientTimeout, match=rf"no connection to 127\.0\.0\.1:{port} within 0\.1 s"):
            make_client(port=port, timeout=Timeout(connect=0.1)).call("ping")


# Ends


def test_a_cancelled_call_tells_the_server(make_client: MakeClient, serve: Serve) -> None:
    is_there = threading.Event()

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        is_there.set()
        cancel, _ = peer.read_request()
        assert (cancel.kind, cancel.meta) == (Kind.CANCEL, {"request_id": head.request_id})
        every(peer)

    server = serve(script)
    client = make_client(port=server.port)
    if not client.cancels:
        pytest.skip("a thread cannot be cancelled")
    call = client.submit("resize", b"image", **SIZE)
    assert is_there.wait(SECONDS)
    assert call.cancel()
    assert client.call("resize", b"other", **SIZE).data == b"other"
    assert server.connections == 1


def test_cancelling_an_upload_closes_the_connection_after_the_other_replies(
    make_client: MakeClient,
    serve: Serve,
) -> None:
    large_is_there, cancelled = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        first, _ = peer.read_request()
        assert peer.read_head() is not None
        large_is_there.set()
        assert cancelled.wait(SECONDS)
        peer.reply(first, body=b"late")
        assert peer.read_to_end() < LARGE

    server = serve(script, every)
    client = make_client(port=server.port)
    if not client.cancels:
        pytest.skip("a thread cannot be cancelled")
    small = client.submit("resize", b"small", **SIZE)
    large = client.submit("resize", bytes(LARGE), **SIZE)
    assert large_is_there.wait(SECONDS)
    assert large.cancel()
    assert client.call("resize", b"third", **SIZE).data == b"third"
    cancelled.set()
    assert small.result(SECONDS).data == b"late"
    assert server.connections == 2


def test_close_ends_a_waiting_call(make_client: MakeClient, serve: Serve) -> None:
    is_there = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        is_there.set()
        peer.read_to_end()

    server = serve(script)
    client = make_client(port=server.port)
    call = client.submit("resize", b"image", **SIZE)
    assert is_there.wait(SECONDS)
    client.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        call.result(SECONDS)
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.call("resize", b"image", **SIZE)
    client.close()


def test_close_ends_an_upload(make_client: MakeClient, serve: Serve) -> None:
    is_there = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.read_head() is not None
        is_there.set()
        assert closed.wait(SECONDS)

    closed = threading.Event()
    server = serve(script)
    client = make_client(port=server.port)
    call = client.submit("resize", bytes(LARGE), **SIZE)
    assert is_there.wait(SECONDS)
    client.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        call.result(SECONDS)
    closed.set()
