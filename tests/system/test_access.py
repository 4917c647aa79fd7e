"""Tokens against a real server, as its clients meet them."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.server.identity.records import add
from tests.support import bare_client
from tests.support.images import encode, jpeg, photo
from tests.support.running_server import RunningServer
from vipsrv.client import AsyncClient, Client, Retry
from vipsrv.errors import Busy, RequestError, TooLarge, Unauthorized, UnsupportedFormat
from vipsrv.protocol import HEADER, Kind, pack_message, unpack_error
from vipsrv.server.identity.token_file import revoke_tokens
from vipsrv.server.identity.tokens import Token, new_token

IMAGE = jpeg()
SIZE: dict[str, Any] = {"width": 80, "height": 60}
OPEN = "OPEN TO EVERYONE"

Serve = Callable[..., RunningServer]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def serve(start_server: StartServer, tokens: Path) -> Serve:
    """Starts a server with the token file as it is."""
    return lambda *arguments: start_server("--workers", "1", "--tokens", str(tokens), *arguments)


def connect(server: RunningServer, token: Token | str | None, **options: Any) -> Client:
    text = token.text if isinstance(token, Token) else token
    return Client(server.host, server.port, token=text, retry=Retry.none(), **options)


def refusal(server: RunningServer, token: Token | str | None, **options: Any) -> RequestError:
    with connect(server, token) as client, pytest.raises(RequestError) as raised:
        client.resize(IMAGE, **(options or SIZE))
    return raised.value


def raw_login(server: RunningServer, token: str, source: str = "127.0.0.1") -> tuple[int, dict[str, Any]]:
    """Status and meta of the reply to a HELLO from an address of this machine."""
    with socket.create_connection((server.host, server.port), 60, source_address=(source, 0)) as sock:
        sock.sendall(pack_message(Kind.HELLO, 1, {"token": token}))
        head = HEADER.unpack(bare_client.read_exactly(sock, HEADER.size))
        return head[4], json.loads(bare_client.read_exactly(sock, head[6]))


# Who may come in


def test_the_holder_of_a_token_is_served(serve: Serve, tokens: Path) -> None:
    token = add(tokens, "shop", limits={"in_flight": 8, "formats": ["jpeg", "png"]})
    server = serve()
    with connect(server, token) as client:
        assert client.resize(IMAGE, **SIZE).width == 80
        assert client.info(IMAGE).format == "jpeg"
        about = client.hello()
        assert (about.writes, about.reads) == (("jpeg", "png"), ("jpeg", "png"))
        assert about.limits.workers is not None
        assert about.limits.workers + (about.limits.queue_per_client or 0) == 8
        client.ping()
    assert token.secret not in server.log


async def test_the_asyncio_client_logs_in(serve: Serve, tokens: Path) -> None:
    token = add(tokens)
    server = serve()
    async with AsyncClient(server.host, server.port, token=token.text) as client:
        assert (await client.resize(IMAGE, **SIZE)).width == 80
    async with AsyncClient(server.host, server.port, token=new_token().text) as client:
        with pytest.raises(Unauthorized, match="the server refused the token: the token is unknown or wrong"):
            await client.resize(IMAGE, **SIZE)


def test_every_wrong_token_gets_one_clear_line(serve: Serve, tokens: Path) -> None:
    token = add(tokens)
    now = datetime.now(UTC).replace(microsecond=0)
    expired = add(tokens, "old", expires=now - timedelta(days=1))
    revoked = add(tokens, "gone")
    revoke_tokens(tokens, revoked.id, now)
    server = serve()
    wrong_secret = f"vips_{token.id}_{new_token().secret}"
    cases: list[tuple[Token | str | None, str]] = [
        (None, "this server requires a token: send HELLO with one first"),
        (new_token(), "the server refused the token: the token is unknown or wrong"),
        (wrong_secret, "the server refused the token: the token is unknown or wrong"),
        (expired, "the server refused the token: the token of old expired on "),
        (revoked, "the server refused the token: the token of gone was revoked on "),
    ]
    for number, (wrong, said) in enumerate(cases):
        error = refusal(server, wrong)
        assert isinstance(error, Unauthorized)
        assert error.message.startswith(said)
        if wrong is None:
            continue
        # The log has one such line a second for each address.
        text = wrong.text if isinstance(wrong, Token) else wrong
        assert raw_login(server, text, f"127.0.1.{number}")[0] == 401
        server.wait_for_log(f"127.0.1.{number}:")
        (line,) = [line for line in server.log.splitlines() if f"127.0.1.{number}:" in line]
        assert said.rpartition("refused the token: ")[2] in line
        assert '"status":401' in line
    for secret in (token.secret, expired.secret, revoked.secret, wrong_secret.rpartition("_")[2]):
        assert secret not in server.log


def test_the_command_line(serve: Serve, tokens: Path, tmp_path: Path) -> None:
    token = add(tokens)
    server = serve()
    image, token_file, wrong_file = (tmp_path / name for name in ("a.jpg", "token", "wrong"))
    image.write_bytes(IMAGE)
    token_file.write_text(f"{token.text}\n")
    wrong_file.write_text(new_token().text)
    where = ["--host", server.host, "--port", str(server.port)]

    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VIPSRV_")}
        done = subprocess.run(
            [sys.executable, "-c", f"from vipsrv.cli.{arguments[0]} import main; main()", *arguments[1:]],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert token.secret not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    resize = ["client", str(image), "--width", "9", *where]
    assert run(*resize, "--token-file", str(token_file))[0] == 0
    assert run(*resize, VIPSRV_TOKEN_FILE=str(token_file))[0] == 0
    assert run(*resize, VIPSRV_TOKEN=token.text)[0] == 0
    code, said = run(*resize)
    assert (code, "this server requires a token" in said, "--token-file" in said) == (1, True, True)
    code, said = run(*resize, "--token-file", str(wrong_file))
    assert (code, "the token is unknown or wrong" in said) == (1, True)
    code, said = run(*resize, "--token-file", str(tmp_path / "nowhere"))
    assert (code, "nowhere" in said) == (4, True)
    code, said = run(*resize, VIPSRV_TOKEN=token.text, VIPSRV_TOKEN_FILE=str(token_file))
    assert (code, "unset one of them" in said) == (2, True)
    assert run("server", "ping", *where)[0] == 0  # needs no token
    assert run("server", "ping", *where, "--token-file", str(token_file))[0] == 0
    code, said = run("server", "ping", *where, "--token-file", str(wrong_file))
    assert (code, "the token is unknown or wrong" in said) == (1, True)
    assert run("server", "ping", *where, "--token-file", str(tmp_path / "nowhere"))[0] == 2


def test_version_1_is_refused_by_its_header(serve: Serve, tokens: Path) -> None:
    add(tokens)
    server = serve()
    with bare_client.connect(server.port) as sock:
        sock.sendall(struct.pack("!III", len(IMAGE), 80, 60))  # and no image
        error = bare_client.read_answer(sock).error
    assert (error["status"], error["code"]) == (401, "unauthorized")
    assert "version 1" in error["message"]


@pytest.mark.parametrize(("allowed", "served"), [("127.0.0.0/8", True), ("192.0.2.0/24,unix", False)])
def test_version_1_of_named_addresses_is_served(
    serve: Serve, tokens: Path, allowed: str, *, served: bool
) -> None:
    add(tokens)
    answer = bare_client.ask(serve("--allow-v1", allowed).port, IMAGE)
    assert (answer.size > 0) is served


def test_a_login_without_end_or_a_large_announcement_takes_nothing(serve: Serve, tokens: Path) -> None:
    token = add(tokens)
    server = serve("--spool-memory", "1MiB", "--spool-disk", "0")
    socks = []
    for number in range(40):
        sock = bare_client.connect(server.port)
        socks.append(sock)
        if number % 2:
            sock.sendall(pack_message(Kind.RESIZE, 1, SIZE, body_size=2 << 30) + bytes(1000))
        else:
            sock.sendall(pack_message(Kind.HELLO, 1, {"token": token.text})[:-3])
    with connect(server, token) as client:  # the spool would be full
        assert client.resize(IMAGE, **SIZE).width == 80
    for sock in socks:
        sock.close()


# Limits


def test_the_rate_of_requests(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"requests_per_second": 0.01})
    other = add(tokens, "archive")
    server = serve()
    with connect(server, token) as client, connect(server, token) as second, connect(server, other) as third:
        client.resize(IMAGE, **SIZE)
        with pytest.raises(Busy, match=r"shop sends more than 0\.01 requests a second") as raised:
            second.resize(IMAGE, **SIZE)
        assert raised.value.retry_after_ms is not None
        assert 1000 < raised.value.retry_after_ms <= 100_001
        client.ping()
        for _ in range(5):
            third.resize(IMAGE, **SIZE)


def test_the_rate_of_bytes(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"bytes_per_second": 10})
    server = serve()
    with connect(server, token) as client:
        client.resize(IMAGE, **SIZE)
        with pytest.raises(Busy, match="bytes a second"):
            client.resize(IMAGE, **SIZE)


def test_the_requests_in_flight(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"in_flight": 1})
    server = serve()
    giant: dict[str, Any] = {"width": 9_000, "height": 9_000}
    with connect(server, token) as client, connect(server, token) as second:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.resize, IMAGE, **giant)
            server.wait_until_busy()
            with pytest.raises(Busy, match="shop has 1 requests in flight"):
                second.resize(IMAGE, **SIZE)
            running.result()
        assert second.resize(IMAGE, **SIZE).width == 80


def test_a_client_that_leaves_frees_its_request_in_flight(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"in_flight": 1})
    server = serve()
    for _ in range(3):
        with bare_client.connect(server.port) as sock:
            sock.sendall(
                pack_message(Kind.HELLO, 1, {"token": token.text})
                + pack_message(Kind.RESIZE, 2, {"width": 9_000, "height": 9_000}, body_size=len(IMAGE))
                + IMAGE
            )
            server.wait_until_busy()
    with connect(server, token) as client:
        while True:
            try:
                assert client.resize(IMAGE, **SIZE).width == 80
            except Busy:  # the server has not seen the end of the last connection yet
                continue
            break


def test_the_pixels(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"max_pixels": 320 * 240})
    server = serve()
    with connect(server, token) as client:
        client.resize(jpeg(320, 240), **SIZE)
        with pytest.raises(TooLarge, match="76800"):
            client.resize(jpeg(321, 240), **SIZE)
        with pytest.raises(TooLarge, match="76800"):
            client.resize(IMAGE, width=400, height=400)
        assert client.hello().limits.max_pixels == 76800


def test_the_formats(serve: Serve, tokens: Path) -> None:
    token = add(tokens, limits={"formats": ["jpeg", "bmp"]})
    server = serve()
    with connect(server, token) as client:
        client.resize(IMAGE, **SIZE)
        client.resize(encode(photo(), "BMP"), **SIZE)
        refused: list[tuple[bytes, dict[str, Any]]] = [
            (encode(photo(), "PNG"), SIZE),
            (IMAGE, {**SIZE, "format": "webp"}),
            (encode(photo(), "BMP"), {**SIZE, "format": "png"}),
        ]
        for image, options in refused:
            with pytest.raises(UnsupportedFormat, match="this client's token: bmp, jpeg"):
                client.resize(image, **options)
        with pytest.raises(UnsupportedFormat, match="this client's token: bmp, jpeg"):
            client.info(encode(photo(), "PNG"))


# Reloads


def reload(server: RunningServer, pid_file: Path) -> str:
    """Run ``vipsrv reload``, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "vipsrv", "reload", "--pid-file", str(pid_file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert server.process.poll() is None
    return done.stdout + done.stderr


def test_a_reload_changes_tokens_and_limits_of_open_connections(
    serve: Serve, tokens: Path, tmp_path: Path
) -> None:
    token = add(tokens, limits={"max_pixels": 1000})
    kept = add(tokens, "archive")
    pid_file = tmp_path / "pid"
    server = serve("--pid-file", str(pid_file))
    with connect(server, token) as client, connect(server, kept) as other:
        other.resize(IMAGE, **SIZE)
        with pytest.raises(TooLarge):
            client.resize(IMAGE, **SIZE)
        text = tokens.read_text()
        tokens.write_text("[[")
        assert "not reloaded" in reload(server, pid_file)
        tokens.write_text(text.replace("1000", "100000"))
        reload(server, pid_file)
        client.resize(IMAGE, **SIZE)
        new = add(tokens, "new")
        revoke_tokens(tokens, token.id, datetime.now(UTC).replace(microsecond=0))
        reload(server, pid_file)
        with pytest.raises(Unauthorized, match="the token of shop was revoked on"):
            client.resize(IMAGE, **SIZE)
        with pytest.raises(
            Unauthorized, match="the server refused the token: the token of shop was revoked on"
        ):
            client.resize(IMAGE, **SIZE)
        other.resize(IMAGE, **SIZE)
    with connect(server, new) as client:
        client.resize(IMAGE, **SIZE)


# An address that guesses


def test_wrong_tokens_of_one_address_are_soon_not_looked_at_and_harm_no_other(
    serve: Serve, tokens: Path
) -> None:
    token = add(tokens)
    server = serve()
    with Client("127.0.0.1", server.port, token=token.text) as client, ThreadPoolExecutor(1) as pool:
        guesses = pool.submit(lambda: [raw_login(server, new_token().text, "127.0.0.2") for _ in range(2000)])
        served = 0
        while not guesses.done() or not served:
            assert client.resize(IMAGE, **SIZE).width == 80
            served += 1
        statuses = [status for status, _ in guesses.result()]
        # All requests on connections that begin meanwhile, too.
        assert raw_login(server, token.text, "127.0.0.1")[0] == 200
    assert statuses.count(401) < 10
    assert statuses.count(401) + statuses.count(429) == 2000
    status, meta = raw_login(server, token.text, "127.0.0.2")
    error = unpack_error(status, meta)
    assert isinstance(error, Busy)
    assert error.retry_after_ms is not None
    server.wait_for_log("logins from 127.0.0.2 are refused for a while")


# The warning at the start


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        (("--host", "0.0.0.0"), True),  # noqa: S104 - for the time of the test
        (("--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"), True),
        (("--host", "0.0.0.0", "--insecure"), False),  # noqa: S104
        (("--host", "127.0.0.1"), False),
    ],
)
def test_a_server_that_is_open_to_the_network_says_so(
    start_server: StartServer, arguments: tuple[str, ...], *, warned: bool
) -> None:
    server = start_server("--workers", "1", *arguments)
    server.wait_for_log("started")  # the line that follows the warning
    lines = [line for line in server.log.splitlines() if OPEN in line]
    assert len(lines) == warned
    if warned:
        assert f"0.0.0.0:{server.listeners[-1].rpartition(':')[2]}" in lines[0]
        assert "127.0.0.1:" not in lines[0]
        assert "--insecure" in lines[0]


def test_a_server_with_tokens_is_not_open(serve: Serve, tokens: Path) -> None:
    add(tokens)
    server = serve("--host", "0.0.0.0")  # noqa: S104
    server.wait_for_log("started")
    assert OPEN not in server.log


def test_a_token_file_with_faults_stops_the_start(tokens: Path) -> None:
    tokens.write_text("[[")
    done = subprocess.run(
        [sys.executable, "-m", "vipsrv", "serve", "--port", "0", "--tokens", str(tokens)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert str(tokens) in line
