"""What a connection may do before its client has logged in, and afterwards, on real sockets."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.connections.test_binary import Connection, read_to_end, resize, send, until
from tests.server.fakes import MANY, FakeWorkers, make_context, succeed
from tests.server.identity.records import CREATED, add
from vipsrv.protocol import HEADER, MAX_META_SIZE, Kind, pack_message
from vipsrv.server.access import Access
from vipsrv.server.connections import served
from vipsrv.server.connections.inbox import InboxState
from vipsrv.server.connections.login import LOGIN_SECONDS, MOST_HELD
from vipsrv.server.connections.served import DRAIN_SECONDS
from vipsrv.server.connections.states import ConnectionState
from vipsrv.server.context import ServerContext
from vipsrv.server.identity import Identities
from vipsrv.server.identity.token_file import revoke_tokens
from vipsrv.server.identity.tokens import Token
from vipsrv.server.settings import ServerSettings

SECONDS = 20
PING = pack_message(Kind.PING, 99)
WRONG = "vips_abcdefgh_" + "x" * 43


def hello(token: object, request_id: int = 1, **more: Any) -> bytes:
    return pack_message(Kind.HELLO, request_id, {"client": "test", "token": token, **more})


class Server:
    """A server with tokens whose workers the test plays."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.tokens = folder / "tokens.toml"
        self.token = add(self.tokens, "shop", limits={"priority": 2.0})
        self.workers = FakeWorkers(free=MANY)
        self.context = make_context(folder, self.workers, max_upload=4 << 30)
        self.context.access = Access(Identities(self.tokens), **rules)
        self.connections: list[Connection] = []
        self._listener: asyncio.Server
        self._sockets = ExitStack()

    async def start(self) -> None:
        self._listener = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        self._sockets.close()
        for connection in self.context.connections:
            connection.abort()
        await self.context.connections.wait_until_closed(SECONDS)
        self._listener.close()
        self.context.spool.close()

    async def connect(self) -> socket.socket:
        before = len(self.connections)
        sock = self._sockets.enter_context(socket.create_connection(self._listener.sockets[0].getsockname()))
        sock.setblocking(False)
        await until(lambda: len(self.connections) > before and hasattr(self.connections[-1], "transport"))
        return sock

    def add(self, name: str, **limits: Any) -> Token:
        token = add(self.tokens, name, limits=limits)
        self.reload()
        return token

    def reload(self) -> None:
        self.context.access.prepare_reload(ServerSettings(tokens=self.tokens))()

    @property
    def spool_in_use(self) -> int:
        return sum(account.share.memory.size + account.share.disk.size for account in accounts(self.context))

    def _accept(self) -> Connection:
        self.connections.append(Connection(self.context))
        return self.connections[-1]


def accounts(context: ServerContext) -> list[Any]:
    return list({flow.account for connection in context.connections for flow in flows(connection)})


def flows(connection: Any) -> list[Any]:
    return [connection._login.place, connection._login.flow]


@asynccontextmanager
async def serving(folder: Path, **rules: Any) -> AsyncIterator[Server]:
    server = Server(folder, **rules)
    await server.start()
    async with asyncio.timeout(SECONDS):
        try:
            yield server
        finally:
            await server.stop()


async def read_reply(sock: socket.socket) -> tuple[int, int, int, dict[str, Any]]:
    """The kind, status, id and meta of the next reply, which has no body."""
    data = bytearray()
    loop = asyncio.get_running_loop()
    while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack(data[: HEADER.size])[6]:
        size = HEADER.size if len(data) < HEADER.size else HEADER.size + HEADER.unpack(data[: HEADER.size])[6]
        part = await loop.sock_recv(sock, size - len(data))
        assert part, f"the connection ended after {bytes(data)!r}"
        data += part
    _, _, _, kind, status, request_id, _, _ = HEADER.unpack(data[: HEADER.size])
    return kind & 0x7F, status, request_id, json.loads(data[HEADER.size :] or b"{}")


async def refusal(sock: socket.socket) -> tuple[int, int, int]:
    """The kind, status and id of the reply with which the server closes the connection."""
    kind, status, request_id, _ = await read_reply(sock)
    assert await read_to_end(sock) == b""
    return kind, status, request_id


async def test_a_token_and_the_requests_after_it_in_one_packet(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        assert (connection.state, connection.identity) == (ConnectionState.ANONYMOUS, None)
        large = {"width": 9, "height": 9, "background": "#102030"}
        outputs = [large] * 16
        await send(
            sock,
            hello(server.token.text)
            + resize(2)
            + pack_message(Kind.RESIZE, 3, {"outputs": outputs, "deadline_ms": 9000}, body_size=5)
            + b"image",
        )
        kind, status, request_id, meta = await read_reply(sock)
        assert (kind, status, request_id) == (Kind.HELLO, 200, 1)
        assert meta == {"server": "fake", "identity": "shop", "identity_limits": {"priority": 2.0}}
        await until(lambda: len(server.workers.jobs) == 2)
        assert (connection.state, connection.identity) == (ConnectionState.OPEN, "shop")


async def test_a_meta_of_the_largest_size_is_read_after_the_login(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        padding = "x" * (MAX_META_SIZE - 200)
        await send(sock, hello(server.token.text) + hello(server.token.text, 2, padding=padding))
        assert (await read_reply(sock))[1:3] == (200, 1)
        assert (await read_reply(sock))[1:3] == (200, 2)


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (resize(5), (Kind.RESIZE, 401, 5)),
        (pack_message(Kind.INFO, 5, body_size=5) + b"image", (Kind.INFO, 401, 5)),
        (pack_message(Kind.HELLO, 5), (Kind.HELLO, 401, 5)),
        (pack_message(Kind.HELLO, 5, {"token": None}), (Kind.HELLO, 401, 5)),
        (pack_message(Kind.CANCEL, 5, {"request_id": 1}), (Kind.CANCEL, 401, 5)),
        (pack_message(Kind.UPLOAD_STATUS, 5, {"id": "0" * 32}), (Kind.UPLOAD_STATUS, 401, 5)),
        (pack_message(77, 5), (77, 401, 5)),
        (pack_message(Kind.PING, 5, body_size=4) + b"body", (Kind.PING, 401, 5)),
        (pack_message(Kind.PING, 5, body_size=1 << 40), (Kind.PING, 401, 5)),
        (pack_message(Kind.PING, 5, {"x": "x" * MOST_HELD}), (Kind.PING, 401, 5)),
        (pack_message(Kind.RESIZE, 5, {"x": "x" * 60_000}, body_size=1 << 31), (Kind.RESIZE, 401, 5)),
        (hello(WRONG, 5), (Kind.HELLO, 401, 5)),
        (hello("", 5), (Kind.HELLO, 401, 5)),
        (hello("x" * 3000, 5), (Kind.HELLO, 401, 5)),
        (hello("x" * 5000, 5), (Kind.HELLO, 401, 5)),
        (hello(7, 5), (Kind.HELLO, 400, 5)),
        (hello(["x"], 5), (Kind.HELLO, 400, 5)),
        (struct.pack("!III", 5, 80, 60) + b"image", (Kind.RESIZE, 401, 0)),
        (struct.pack("!III", 2**32 - 1, 80, 60), (Kind.RESIZE, 401, 0)),
        (b"GET / HTTP/1.1\r\n", (Kind.RESIZE, 401, 0)),
        (bytes(12), (Kind.RESIZE, 400, 0)),
    ],
)
async def test_anything_but_a_token_or_a_ping_is_refused_and_holds_nothing(
    tmp_path: Path, message: bytes, answer: tuple[int, int, int]
) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        if not any(message[:4]):  # nothing may precede version 1
            await send(sock, PING + PING)
            for _ in range(2):
                assert (await read_reply(sock))[:3] == (Kind.PING, 200, 99)
        await send(sock, message + resize(6) + hello(server.token.text, 7))
        assert await refusal(sock) == answer
        assert server.workers.jobs == []
        assert server.spool_in_use == 0
        assert server.connections[0].identity is None


async def test_announcing_two_gigabytes_takes_no_room(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for _ in range(20):
            sock = await server.connect()
            await send(sock, resize(5, b"", announced=2 << 30) + bytes(100_000))
            assert (await read_reply(sock))[1] == 401
            assert server.spool_in_use == 0
            assert all(connection.incoming is None for connection in server.connections)
            sock.close()


async def test_a_client_that_does_not_log_in_is_closed_after_a_while(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        connection.watch(time.monotonic() + LOGIN_SECONDS / 2)
        assert connection.state is ConnectionState.ANONYMOUS
        await send(sock, PING)  # does not prolong it
        await read_reply(sock)
        connection.watch(time.monotonic() + LOGIN_SECONDS)
        assert await refusal(sock) == (Kind.RESIZE, 401, 0)


async def test_what_has_arrived_in_part_is_refused_with_its_id(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        await send(sock, hello(WRONG, 5)[:-9])
        await until(lambda: not connection.between_messages)
        connection.watch(time.monotonic() + LOGIN_SECONDS)
        assert await refusal(sock) == (Kind.HELLO, 401, 5)


async def test_unanswered_pings_are_not_read_without_bound(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        served: socket.socket = connection.transport.get_extra_info("socket")
        served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        inbox = connection._inbox
        while inbox.state is not InboxState.PAUSED:  # the client never reads
            with suppress(BlockingIOError):
                sock.send(PING * 1000)
            await asyncio.sleep(0)
        assert len(inbox._unread) <= MOST_HELD


async def test_an_excess_connection_holds_as_little(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.context.connections.limit = 1
        await server.connect()
        sock = await server.connect()
        assert server.connections[-1].state is ConnectionState.EXCESS
        await send(sock, pack_message(Kind.PING, 5, {"x": "x" * MOST_HELD}))
        assert (await refusal(sock))[1] == 400


async def test_an_anonymous_connection_gives_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        connection.watch(time.monotonic())
        assert connection.give_way()
        assert await read_to_end(sock) == b""


async def test_another_identity_needs_another_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        other = server.add("archive")
        second = server.add("shop", priority=2.0)
        sock = await server.connect()
        await send(sock, hello(server.token.text, 1))
        assert (await read_reply(sock))[1:3] == (200, 1)
        await send(sock, hello(second.text, 2) + hello(other.text, 3) + pack_message(Kind.HELLO, 4))
        assert (await read_reply(sock))[1:3] == (200, 2)
        _, status, _, meta = await read_reply(sock)
        assert (status, "in use by shop" in meta["message"]) == (400, True)
        _, status, _, meta = await read_reply(sock)
        assert (status, meta["identity"]) == (200, "shop")
        await send(sock, hello(WRONG, 5) + resize(6))
        assert await refusal(sock) == (Kind.HELLO, 401, 5)


async def test_a_second_token_of_the_identity_replaces_the_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        second = server.add("shop", priority=2.0)
        sock = await server.connect()
        await send(sock, hello(server.token.text, 1) + hello(second.text, 2))
        assert (await read_reply(sock))[1:3] == (200, 1)
        assert (await read_reply(sock))[1:3] == (200, 2)
        revoke_tokens(server.tokens, server.token.id, CREATED)
        server.reload()
        await send(sock, pack_message(Kind.HELLO, 3))
        assert (await read_reply(sock))[1:3] == (200, 3)
        revoke_tokens(server.tokens, second.id, CREATED)
        server.reload()
        await send(sock, resize(4))
        assert await refusal(sock) == (Kind.RESIZE, 401, 4)


async def test_a_token_that_is_revoked_ends_the_connection_at_the_next_request(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        await send(sock, hello(server.token.text) + resize(2))
        assert (await read_reply(sock))[1] == 200
        await until(lambda: bool(server.workers.jobs))
        revoke_tokens(server.tokens, server.token.id, CREATED)
        server.reload()
        await send(sock, resize(3, b"other"))
        kind, status, request_id, meta = await read_reply(sock)
        assert (kind, status, request_id) == (Kind.RESIZE, 401, 3)
        assert "revoked" in meta["message"]
        succeed(server.workers.jobs[0], server.context.spool, size=9)  # what has begun is finished
        rest = await read_to_end(sock)
        assert HEADER.unpack(rest[: HEADER.size])[3:6] == (Kind.RESIZE | 0x80, 200, 2)


async def test_an_identity_is_one_account_for_all_its_connections(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        socks = [await server.connect() for _ in range(3)]
        for sock in socks:
            await send(sock, hello(server.token.text))
            await read_reply(sock)
        keys = {account.key: account.weight for account in accounts(server.context)}
        assert keys == {"127.0.0.1": 1.0, "identity:shop": 2.0}
        places = {connection._login.place.account for connection in server.connections}
        assert len(places) == 1
        for sock in socks:
            sock.close()
        await server.context.connections.wait_until_closed(SECONDS)
        assert len(server.context.accounts) == 0


@pytest.mark.parametrize("how", ["address", "certificate"])
async def test_version_1_of_a_named_address_or_with_a_certificate(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules: dict[str, Any] = {"allow_v1": ["127.0.0.0/8"]}
    if how == "certificate":
        monkeypatch.setattr(served, "has_tls", lambda _transport: True)
        rules = {"certificate_identity": lambda _transport: "printer"}
    async with serving(tmp_path, **rules) as server:
        sock = await server.connect()
        await send(sock, struct.pack("!III", 5, 80, 60) + b"image")
        await until(lambda: bool(server.workers.jobs))
        succeed(server.workers.jobs[0], server.context.spool, size=9)
        assert len(await read_to_end(sock)) == 4 + 9


async def test_an_address_that_needs_no_token_for_version_1_needs_one_for_version_2(tmp_path: Path) -> None:
    async with serving(tmp_path, allow_v1=["127.0.0.1"]) as server:
        sock = await server.connect()
        await send(sock, resize(5))
        assert await refusal(sock) == (Kind.RESIZE, 401, 5)


async def test_a_certificate_is_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "has_tls", lambda _transport: True)
    async with serving(tmp_path, certificate_identity=lambda _transport: "printer") as server:
        sock = await server.connect()
        assert (server.connections[0].state, server.connections[0].identity) == (
            ConnectionState.OPEN,
            "printer",
        )
        await send(sock, pack_message(Kind.HELLO, 5))
        assert (await read_reply(sock))[3] == {"server": "fake", "identity": "printer"}
        await send(sock, hello(server.token.text, 6))  # a token says more: it may have limits
        assert (await read_reply(sock))[3]["identity"] == "shop"
        await send(sock, resize(7))
        await until(lambda: bool(server.workers.jobs))
        assert {account.key for account in accounts(server.context)} == {"127.0.0.1", "identity:shop"}
        sock.close()
        await server.context.connections.wait_until_closed(SECONDS)
        server.context.accounts.forget_unused()
        assert len(server.context.accounts) == 0


async def test_an_address_that_guesses_is_told_when_to_try_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        kept = await server.connect()
        await send(kept, hello(server.token.text))
        assert (await read_reply(kept))[1] == 200
        statuses, meta = [], {"retry_after_ms": 0}
        for _ in range(30):
            sock = await server.connect()
            await send(sock, hello(WRONG))
            _, status, _, meta = await read_reply(sock)
            statuses.append(status)
            sock.close()
        assert statuses == sorted(statuses)
        assert set(statuses) == {401, 429}
        assert meta["retry_after_ms"] > 0
        assert server.context.access.attempts < 10
        await send(kept, PING)  # who has logged in already is not concerned
        assert (await read_reply(kept))[1] == 200


@pytest.mark.parametrize(
    ("during", "answer"), [("a drain", 401), ("a drain with a successor", 401), ("an excess", 429)]
)
async def test_before_a_login_nothing_is_served_in_other_states(
    tmp_path: Path, during: str, answer: int
) -> None:
    async with serving(tmp_path) as server:
        if during == "an excess":
            server.context.connections.limit = 1
            await server.connect()
        sock = await server.connect()
        if during.startswith("a drain"):
            server.context.draining = True
            server.context.has_successor = during.endswith("successor")
            server.connections[-1].drain()
        await send(sock, resize(5) + hello(server.token.text, 6))
        kind, status, request_id, _ = await read_reply(sock)
        assert (kind, status, request_id) == (Kind.RESIZE, answer, 5)
        assert await read_to_end(sock) == b""
        assert server.workers.jobs == []


@pytest.mark.parametrize("successor", [True, False])
async def test_a_login_during_a_drain(tmp_path: Path, *, successor: bool) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        server.context.draining, server.context.has_successor = True, successor
        connection.drain()
        await send(sock, hello(server.token.text) + resize(2))
        assert (await read_reply(sock))[1] == (200 if successor else 503)
        if successor:
            await until(lambda: len(server.workers.jobs) == 1)
        else:
            assert await read_to_end(sock) == b""
            assert server.workers.jobs == []


async def test_an_anonymous_connection_does_not_delay_a_drain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        server.context.draining = True
        connection.drain()
        connection.watch(time.monotonic() + DRAIN_SECONDS)
        assert await read_to_end(sock) == b""


async def test_the_time_of_a_login_does_not_shorten_a_later_drain(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sock = await server.connect()
        (connection,) = server.connections
        await send(sock, hello(server.token.text))
        await read_reply(sock)
        connection.watch(time.monotonic() + 2 * LOGIN_SECONDS)
        server.context.draining = True
        connection.drain()
        connection.watch(time.monotonic() + DRAIN_SECONDS / 2)
        assert connection.state is ConnectionState.DRAINING


async def test_a_server_without_tokens_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.context.access = Access()
        sock = await server.connect()
        await send(sock, hello(WRONG, 5) + PING)
        _, status, _, meta = await read_reply(sock)
        assert (status, "does not offer tokens" in meta["message"]) == (400, True)
        assert (await read_reply(sock))[1] == 200
