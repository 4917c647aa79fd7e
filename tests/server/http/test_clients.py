"""Who sends a request: each one shows its own token, or the connection has a certificate."""

from pathlib import Path
from typing import Any

import pytest

from tests.server.http.serving import HOST, HttpServer, client_of, get, post, serving, until
from tests.server.identity.records import add
from vipsrv.server.access import Access
from vipsrv.server.connections import served
from vipsrv.server.connections.login import LOGIN_SECONDS
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.http.clients import MOST_KEPT
from vipsrv.server.identity import Identities
from vipsrv.server.settings import ServerSettings

WRONG = "vips_abcdefgh_" + "x" * 43


def bearer(token: str) -> bytes:
    return f"Authorization: Bearer {token}\r\n".encode()


class Tokens:
    """A token file with one token, and the rules that it means."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.file = folder / "tokens.toml"
        self.shop = add(self.file, "shop").text
        self.access = Access(Identities(self.file), **rules)

    def add(self, name: str, **limits: Any) -> str:
        token = add(self.file, name, **limits).text
        self.access.prepare_reload(ServerSettings(tokens=self.file))()
        return token


@pytest.mark.parametrize(
    "field",
    [b"", b"Authorization: Basic c2hvcDpzaG9w\r\n", b"Authorization: Bearer\r\n", bearer(WRONG)],
    ids=["none", "basic", "empty", "wrong"],
)
async def test_without_a_token_nothing_is_taken(tmp_path: Path, field: bytes) -> None:
    tokens = Tokens(tmp_path)
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        await client.send(post(bytes(300_000), field))
        reply = await client.read()
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert reply.headers["connection"] == "close"
        assert await client.rest() == b""
        assert server.jobs == []
        assert server.lines[0].identity is None


async def test_a_body_is_not_asked_for_before_the_client_is_known(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    for field, status in ((b"", 401), (bearer(WRONG), 401), (bearer(tokens.shop), 100)):
        async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
            head = post(b"image", b"Expect: 100-continue\r\n" + field).removesuffix(b"image")
            await client.send(head)
            assert (await client.read_head()).status == status


async def test_a_page_may_need_a_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        assert (await client.request(get(b"/page"))).status == 200
        assert (await client.request(get(b"/private"))).status == 401
        assert (await client.request(get(b"/private", bearer(tokens.shop)))).body == b"secret"
        assert [line.identity for line in server.lines] == [None, None, "shop"]


async def test_each_request_has_its_own_client(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    other = tokens.add("other", limits={"priority": 2.0})
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        await client.send(post(b"a", bearer(tokens.shop)) + post(b"b", bearer(other)) + post(b"c"))
        for job in await server.jobs_given(2):
            server.succeed(job, 3)
        assert [(await client.read()).status for _ in range(3)] == [200, 200, 401]
        assert [line.identity for line in server.lines] == ["shop", "other", None]
        assert {account.key for account in accounts(server)} == {
            "127.0.0.1",
            "identity:shop",
            "identity:other",
        }
        client.close()
        await until(lambda: server.connection.state is ConnectionState.CLOSED)
        server.context.accounts.forget_unused()
        assert len(server.context.accounts) == 0


def accounts(server: HttpServer) -> list[Any]:
    return list(server.context.accounts._accounts.values())


async def test_a_connection_keeps_a_bounded_number_of_clients(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    texts = [tokens.add(f"client{number}") for number in range(MOST_KEPT + 5)]
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        for text in texts:
            assert (await client.request(get(b"/private", bearer(text)))).status == 200
        assert len(server.context.accounts) == MOST_KEPT + 1


async def test_a_token_that_is_revoked_counts_no_more(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        assert (await client.request(get(b"/private", bearer(tokens.shop)))).status == 200
        tokens.file.unlink()
        tokens.add("other")
        assert (await client.request(get(b"/private", bearer(tokens.shop)))).status == 401


async def test_the_limits_of_an_identity(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    slow = tokens.add("slow", limits={"bytes_per_second": 1000})
    body = bytes(9000)
    chunked = (
        b"POST /resize?width=8 HTTP/1.1\r\n"
        + HOST
        + bearer(slow)
        + b"Transfer-Encoding: chunked\r\n\r\n2328\r\n"
        + body
        + b"\r\n0\r\n\r\n"
    )
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        await client.send(chunked)
        server.succeed((await server.jobs_given())[0], 3)
        assert (await client.read()).status == 200
        # Its size was not known when it was admitted, so it counts against the next one.
        reply = await client.request(chunked)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 1


async def test_an_address_that_guesses_is_told_when_to_try_again(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        statuses = [(await client.request(get(b"/private", bearer(WRONG)))).status for _ in range(6)]
        assert statuses == [401, 401, 401, 401, 429, 429]
        reply = await client.request(get(b"/private", bearer(tokens.shop)))
        assert (reply.status, reply.headers["retry-after"]) == (429, "20")


async def test_a_certificate_is_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "has_tls", lambda _transport: True)
    tokens = Tokens(tmp_path, certificate_identity=lambda _transport: "printer")
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        assert (await client.request(get(b"/private"))).status == 200
        assert (await client.request(get(b"/private", bearer(tokens.shop)))).status == 200
        assert [line.identity for line in server.lines] == ["printer", "shop"]
        assert server.lines[0].protocol == "http+tls"


async def test_whoever_says_nothing_is_not_kept_long(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    async with serving(tmp_path, access=tokens.access) as server, client_of(server) as client:
        await until(lambda: server.context.connections.served == 1)
        server.watch(LOGIN_SECONDS - 1)
        assert server.connection.state is ConnectionState.OPEN
        server.watch(LOGIN_SECONDS + 1)
        assert await client.rest() == b""
