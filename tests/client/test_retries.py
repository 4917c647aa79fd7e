"""Both clients when a request fails that may be sent again."""

import io
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import LARGE, SECONDS, SIZE, Peer, Script, every, silent
from vipsrv.client import Client, Retry, Timeout
from vipsrv.errors import (
    BadRequest,
    Busy,
    ClientTimeout,
    ConnectionLost,
    Draining,
    RequestError,
    WorkerDied,
)
from vipsrv.protocol import Kind

AT_ONCE = Retry(first_pause=0)
LONG = Busy("full", retry_after_ms=14_000)
"""A refusal after which a client pauses for longer than a test may take."""


def refusing(*errors: RequestError) -> Script:
    """Refuse requests with these errors, and then answer every one."""

    def script(peer: Peer) -> None:
        for error in errors:
            head, _ = peer.read_request()
            peer.refuse(head, error)
        every(peer)

    return script


def breaks(peer: Peer) -> None:
    """Close after one whole request."""
    peer.read_request()


def breaks_early(peer: Peer) -> None:
    """Close after the head of one request."""
    assert peer.read_head() is not None


@pytest.mark.parametrize("error", [Busy("full"), WorkerDied("out of memory")], ids=lambda error: error.code)
def test_a_refused_request_is_sent_again(make_client: MakeClient, serve: Serve, error: RequestError) -> None:
    server = serve(refusing(error))
    result = make_client(port=server.port, retry=AT_ONCE).call("resize", b"image", **SIZE)
    assert (result.data, result.attempts) == (b"image", 2)


@pytest.mark.parametrize("method", ["resize", "info", "hello"])
def test_a_lost_request_is_sent_again(make_client: MakeClient, serve: Serve, method: str) -> None:
    def answers(peer: Peer) -> None:
        head, body = peer.read_request()
        none: list[str] = []
        facts = {"server": "fake", "limits": {}, "formats": {"in": none, "out": none}, "fits": none}
        meta = facts if method == "hello" else {}
        peer.reply(head, body=body, **meta)

    server = serve(breaks, breaks, answers)
    arguments = () if method == "hello" else (b"image",)
    make_client(port=server.port, retry=AT_ONCE).call(
        method, *arguments, **(SIZE if method == "resize" else {})
    )
    assert server.connections == 3


def test_a_request_that_is_not_answered_in_time_is_sent_again(make_client: MakeClient, serve: Serve) -> None:
    def answers_the_second(peer: Peer) -> None:
        peer.read_request()
        while True:
            head, body = peer.read_request()
            if head.kind == Kind.RESIZE:
                peer.reply(head, body=body)
                return

    server = serve(answers_the_second)
    timeout = Timeout(reply=1.5)  # for a machine that is busy
    result = make_client(port=server.port, retry=AT_ONCE, timeout=timeout).call("resize", b"image", **SIZE)
    assert (result.data, result.attempts) == (b"image", 2)


def test_a_ping_measures_one_attempt(make_client: MakeClient, serve: Serve) -> None:
    server = serve(breaks)
    with pytest.raises(ConnectionLost):
        make_client(port=server.port, retry=AT_ONCE).call("ping")
    assert server.connections == 1


def test_what_would_fail_again_is_sent_once(make_client: MakeClient, serve: Serve) -> None:
    server = serve(refusing(BadRequest("what?")))
    with pytest.raises(BadRequest, match=r"^what\?$"):
        make_client(port=server.port, retry=AT_ONCE).call("resize", b"image", **SIZE)


def test_the_error_of_the_last_attempt_is_raised(make_client: MakeClient, serve: Serve) -> None:
    server = serve(refusing(Busy("first"), Busy("second"), Busy("third", retry_after_ms=7)))
    retry = Retry(attempts=3, first_pause=0)
    with pytest.raises(Busy, match=r"^third \(after 3 attempts\)$") as caught:
        make_client(port=server.port, retry=retry).call("resize", b"image", **SIZE)
    assert (caught.value.attempts, caught.value.retry_after_ms) == (3, 7)


def test_a_client_without_retries_sends_once(make_client: MakeClient, serve: Serve) -> None:
    server = serve(refusing(Busy("full")))
    with pytest.raises(Busy, match=r"^full$"):
        make_client(port=server.port, retry=Retry.none()).call("resize", b"image", **SIZE)


def test_a_draining_server_gets_no_further_request_over_that_connection(
    make_client: MakeClient, serve: Serve
) -> None:
    def drains(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Draining("the server is shutting down"))
        assert peer.read_head() is None

    server = serve(drains, every)
    result = make_client(port=server.port, retry=AT_ONCE).call("resize", b"image", **SIZE)
    assert (result.data, result.attempts) == (b"image", 2)


def test_a_spent_budget_lets_nothing_be_sent_again(make_client: MakeClient, serve: Serve) -> None:
    server = serve(refusing(*(Busy("full") for _ in range(4))))
    client = make_client(port=server.port, retry=Retry(first_pause=0, tokens=4))
    for attempts in (2, 1, 1):
        with pytest.raises(Busy) as caught:
            client.call("resize", b"image", **SIZE)
        assert caught.value.attempts == attempts
    assert client.call("resize", b"image", **SIZE).data == b"image"


# Version 1


def test_a_version_1_request_is_sent_again(make_client: MakeClient, serve: Serve) -> None:
    def refuses(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Busy("full"))

    def answers(peer: Peer) -> None:
        peer.read_request()
        peer.reply_v1()

    server = serve(refuses, breaks, answers)
    client = make_client(port=server.port, protocol=1, retry=AT_ONCE)
    result = client.call("resize", b"image", **SIZE)
    assert (result.data, result.attempts) == (b"result", 3)


# The image


def _bytes(path: Path) -> object:
    return path.read_bytes()


def _path(path: Path) -> object:
    return path


def _after_a_header(path: Path) -> object:
    file = io.BytesIO(b"header" + path.read_bytes())
    file.seek(6)
    return file


@pytest.mark.parametrize("make", [_bytes, _path, _after_a_header])
@pytest.mark.parametrize("script", [breaks, breaks_early])
def test_each_attempt_sends_the_whole_image(
    make_client: MakeClient, serve: Serve, tmp_path: Path, make: Callable[[Path], object], script: Script
) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 3000)
    server = serve(script, every)
    result = make_client(port=server.port, retry=AT_ONCE).call("resize", make(path), **SIZE)
    assert result.data == path.read_bytes()


class Once(io.BytesIO):
    """An image that can be measured, but not read a second time."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and getattr(self, "began", False):
            raise OSError("the tape cannot go back")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        self.began = True
        return super().read(size)


def test_a_file_object_that_cannot_go_back_is_sent_once(make_client: MakeClient, serve: Serve) -> None:
    server = serve(breaks)
    with pytest.raises(ConnectionLost) as caught:
        make_client(port=server.port, retry=AT_ONCE).call("resize", Once(b"image"), **SIZE)
    assert caught.value.attempts == 1
    assert "the tape cannot go back" in str(caught.value.__cause__)


# The deadline of a call


def test_a_call_ends_at_its_deadline(make_client: MakeClient, serve: Serve) -> None:
    server = serve(silent)
    client = make_client(port=server.port, retry=AT_ONCE, timeout=Timeout(call=0.2))
    with pytest.raises(ClientTimeout, match=r"^the call took longer than its 0\.2 s; "):
        client.call("resize", b"image", **SIZE)


def test_a_call_ends_at_its_deadline_while_it_sends(make_client: MakeClient, serve: Serve) -> None:
    ended = threading.Event()

    def reads_nothing(peer: Peer) -> None:
        assert ended.wait(SECONDS)
        peer.read_to_end()

    server = serve(reads_nothing)
    client = make_client(port=server.port, retry=AT_ONCE, timeout=Timeout(call=0.2))
    with pytest.raises(ClientTimeout, match=r"^the call took longer than its 0\.2 s; "):
        client.call("resize", bytes(LARGE), **SIZE)
    ended.set()


def test_a_call_ends_at_its_deadline_while_another_one_sends(make_client: MakeClient, serve: Serve) -> None:
    """The one that waits to send may have a moment left for a connection of its own."""
    ended = threading.Event()

    def reads_nothing(peer: Peer) -> None:
        assert ended.wait(SECONDS)
        peer.read_to_end()

    server = serve(reads_nothing, silent, silent)
    client = make_client(port=server.port, retry=AT_ONCE, timeout=Timeout(call=0.2))
    calls = [client.submit("resize", bytes(LARGE), **SIZE) for _ in range(2)]
    errors = [call.exception(SECONDS) for call in calls]
    assert [type(error) for error in errors] == [ClientTimeout] * 2, errors
    ended.set()


def test_the_error_at_the_deadline_tells_the_one_before(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, Busy("the queue is full"))
        silent(peer)

    server = serve(script)
    client = make_client(port=server.port, retry=AT_ONCE, timeout=Timeout(call=0.5))
    with pytest.raises(ClientTimeout, match=r"after 2 attempts; the one before the last: the queue is full"):
        client.call("resize", b"image", **SIZE)


def test_a_pause_that_would_pass_the_deadline_is_not_begun(make_client: MakeClient, serve: Serve) -> None:
    server = serve(refusing(LONG))
    client = make_client(port=server.port, retry=Retry(), timeout=Timeout(call=13))
    with pytest.raises(Busy, match=r"^full$"):
        client.call("resize", b"image", **SIZE)


def test_a_deadline_that_is_not_reached_changes_nothing(make_client: MakeClient, serve: Serve) -> None:
    server = serve(every)
    client = make_client(port=server.port, timeout=Timeout(call=SECONDS, send=SECONDS))
    image = bytes(range(256)) * 4000
    assert client.call("resize", image, **SIZE).data == image
    assert client.call("ping") < SECONDS
    assert client.call("resize", io.BytesIO(image), **SIZE).data == image


# What ends a pause


def announcing(refused: threading.Event) -> Script:
    """Refuse a request so that its client pauses for long; set the event."""

    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        peer.refuse(head, LONG)
        refused.set()
        peer.read_to_end()

    return script


def test_closing_the_client_ends_a_pause(make_client: MakeClient, serve: Serve) -> None:
    refused = threading.Event()
    server = serve(announcing(refused))
    client = make_client(port=server.port, retry=Retry())
    call = client.submit("resize", b"image", **SIZE)
    assert refused.wait(SECONDS)
    client.close()
    error = call.exception(SECONDS)
    assert isinstance(error, ConnectionLost)
    assert "the client was closed" in str(error)


def test_cancelling_a_call_ends_its_pause(make_client: MakeClient, serve: Serve) -> None:
    if not make_client(port=1).cancels:
        pytest.skip("a thread cannot be cancelled")
    refused = threading.Event()
    server = serve(announcing(refused))
    client = make_client(port=server.port, retry=Retry())
    call = client.submit("resize", b"image", **SIZE)
    assert refused.wait(SECONDS)
    assert call.cancel()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no pthread_kill")
def test_a_ctrl_c_ends_a_pause(serve: Serve) -> None:
    refused = threading.Event()
    main = threading.get_ident()

    def interrupt() -> None:
        assert refused.wait(SECONDS)
        signal.pthread_kill(main, signal.SIGINT)

    server = serve(announcing(refused))
    thread = threading.Thread(target=interrupt)
    with Client(port=server.port) as client:
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                client.resize(b"image", width=8, height=6)
        finally:
            thread.join(SECONDS)
