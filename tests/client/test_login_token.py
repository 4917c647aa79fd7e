"""The token of a client: where it comes from, when it is sent, and that it is never shown."""

import traceback
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import MakeClient, Serve
from tests.client.fake_server import SIZE, Peer, every, one
from vipsrv.client import AsyncClient, Client
from vipsrv.client.core import ClientCore
from vipsrv.client.login_token import MAX_TOKEN_SIZE, choose_token
from vipsrv.client.requests import HELLO, PING
from vipsrv.errors import BadRequest, Busy, Draining, RequestError, Unauthorized
from vipsrv.protocol import Kind, MessageStarted, RequestReader

TOKEN = "vips_abcdefgh_" + "s" * 43


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIPSRV_TOKEN", "VIPSRV_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


# Where it comes from


def test_arguments_win_over_the_environment(token_file: Path) -> None:
    other = {"VIPSRV_TOKEN": "other"}
    assert choose_token(environment={}) is None
    assert choose_token(environment={"VIPSRV_TOKEN": "", "VIPSRV_TOKEN_FILE": ""}) is None
    assert choose_token(environment=other) == "other"
    assert choose_token(environment={"VIPSRV_TOKEN_FILE": str(token_file)}) == TOKEN
    assert choose_token(file=token_file, environment=other) == TOKEN
    assert choose_token("given", environment=other) == "given"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_end_of_the_line_in_a_file_is_not_part_of_the_token(token_file: Path, end: str) -> None:
    token_file.write_bytes(f"{TOKEN}{end}".encode())
    assert choose_token(file=token_file) == TOKEN


def test_two_tokens_in_the_environment_are_refused(token_file: Path) -> None:
    with pytest.raises(ValueError, match="VIPSRV_TOKEN: is set, and VIPSRV_TOKEN_FILE as well; unset one"):
        choose_token(environment={"VIPSRV_TOKEN": TOKEN, "VIPSRV_TOKEN_FILE": str(token_file)})


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "is empty"),
        ("s3cret and more", "must be one token"),
        ("s3cret\nand more", "must be one token"),
        ("s3cret\t", "must be one token"),
        ("s3crét", "must be one token"),
        ("s3cret" * MAX_TOKEN_SIZE, "must be one token"),
    ],
)
def test_what_cannot_be_a_token_is_refused_and_not_shown(token_file: Path, token: str, said: str) -> None:
    token_file.write_text(token)
    for call in (
        lambda: choose_token(token),
        lambda: choose_token(file=token_file),
        lambda: Client(token=token),
        lambda: AsyncClient(token=token),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            call()
        assert "s3cr" not in str(raised.value)


def test_a_large_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ValueError, match="must be one token"):
        choose_token(file=Path("/dev/zero"))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        choose_token(environment={"VIPSRV_TOKEN_FILE": str(tmp_path / "nowhere")})


# When it is sent


def login(peer: Peer) -> MessageStarted:
    """Read the HELLO with the token."""
    head, _ = peer.read_request()
    assert (head.kind, head.meta) == (Kind.HELLO, {**HELLO.meta, "token": TOKEN})
    return head


def test_it_goes_with_the_first_request_without_a_round_trip(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        hello = login(peer)
        first, _ = peer.read_request()  # it was sent before the reply to the HELLO
        peer.reply(hello)
        peer.reply(first)
        every(peer)

    client = make_client(port=serve(script).port, token=TOKEN)
    result = client.call("resize", b"image", **SIZE)
    assert result.data == b"result"
    assert client.call("resize", b"image", **SIZE).data == b"image"
    client.call("ping")


def test_it_is_in_the_same_packet_as_the_first_request() -> None:
    core = ClientCore(2, "there", token=TOKEN)
    pending = core.start(PING, 0, lambda: None)
    kinds = [
        event.kind
        for event in RequestReader().receive_data(pending.head)
        if isinstance(event, MessageStarted)
    ]
    assert kinds == [Kind.HELLO, Kind.PING]
    assert TOKEN.encode() not in core.start(PING, 0, lambda: None).head


def test_every_connection_sends_it(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.reply(login(peer))
        one(peer)

    server = serve(script, script, script)
    client = make_client(port=server.port, token=TOKEN)
    for _ in range(3):
        assert client.call("resize", b"image", **SIZE).data == b"result"
    assert server.connections == 3


def test_the_environment_is_used(
    make_client: MakeClient, serve: Serve, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        peer.reply(login(peer))
        one(peer)

    monkeypatch.setenv("VIPSRV_TOKEN_FILE", str(token_file))
    assert make_client(port=serve(script).port).call("resize", b"image", **SIZE).data == b"result"


def test_version_1_has_no_token(
    make_client: MakeClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        head, _ = peer.read_request()
        assert head.version == 1
        peer.reply_v1()

    monkeypatch.setenv("VIPSRV_TOKEN", TOKEN)
    client = make_client(port=serve(script).port, protocol=1)
    assert client.call("resize", b"image", **SIZE).data == b"result"


# What the server may answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Unauthorized("it has expired"), "the server refused the token: it has expired"),
        (Busy("too many failed logins", retry_after_ms=7000), "too many failed logins"),
        (Draining("the server is shutting down"), "the server is shutting down"),
    ],
)
def test_a_refused_login_ends_every_request(
    make_client: MakeClient, serve: Serve, answer: RequestError, said: str
) -> None:
    def script(peer: Peer) -> None:
        head = login(peer)
        peer.read_head()
        peer.refuse(head, answer)
        peer.read_to_end()

    client = make_client(port=serve(script).port, token=TOKEN)
    call: Future[Any] = client.submit("resize", bytes(1 << 20), **SIZE)
    error = call.exception(60)
    assert type(error) is type(answer)
    assert isinstance(error, RequestError)
    assert (error.message, error.retry_after_ms) == (said, answer.retry_after_ms)
    shown = "".join(traceback.format_exception(error))
    assert "ssss" not in shown


def test_a_server_without_tokens_serves_all_the_same(make_client: MakeClient, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.refuse(login(peer), BadRequest("token: this server does not offer tokens"))
        every(peer)

    client = make_client(port=serve(script).port, token=TOKEN)
    assert client.call("resize", b"image", **SIZE).data == b"image"
    assert client.call("resize", b"image", **SIZE).data == b"image"


def test_it_is_not_shown() -> None:
    client = Client(token=TOKEN)
    core = ClientCore(2, "there", token=TOKEN)
    pending = core.start(PING, 0, lambda: None)
    for one_ in (client, AsyncClient(token=TOKEN), core, pending):
        assert "ssss" not in repr(one_) + str(one_)
