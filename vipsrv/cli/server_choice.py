"""Choose the server of a ``vipsrv-client`` call: a running server, or one that is started for the call."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import typer

from vipsrv.address import Address
from vipsrv.cli.tls_options import TlsArguments, TlsOptions
from vipsrv.client import AsyncClient, Client, Retry, Timeout, Version1Client
from vipsrv.client.embedded import EmbeddedServer, server_is_installed
from vipsrv.client.server_address import ServerChoice
from vipsrv.client.server_names import parse_servers, servers_of_environment
from vipsrv.client.timeouts import PING_OF_ONE
from vipsrv.errors import ConnectFailed, RequestError

T = TypeVar("T")


class ServerNotInstalled(ConnectFailed):
    """Nothing listens at the default address, and this installation has no server to start."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a server returned, its address, and whether it was started for the call."""

    value: T
    server: str
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallServer:
    """The server to use for one call.

    ``may_start_one`` allows starting one if none is configured and nothing listens at the default address.
    ``servers`` are several that run already, in place of ``choice``. ``token`` is for a server that runs
    already. ``retries`` is how often a request may be sent again.
    """

    program: str
    choice: ServerChoice
    timeout: Timeout
    may_start_one: bool
    quiet: bool
    tls: TlsOptions = field(default_factory=TlsOptions)
    token: str | None = None
    retries: int = 0
    servers: tuple[str, ...] = ()

    def ask(self, request: Callable[[Client], T]) -> Answer[T]:
        """Make a request with a client of the server. Raises the errors of ``Client``."""
        if self.servers:
            with Client(
                servers=self.servers,
                timeout=self.timeout,
                retry=self._retry(),
                token=self.token,
                **self.tls.arguments(),
            ) as client:
                return Answer(request(client), ", ".join(self.servers), embedded=False)

        def at(address: Address, token: str | None) -> T:
            arguments = _client_arguments(address)
            with Client(
                *arguments, timeout=self.timeout, retry=self._retry(), token=token, **self._tls(address)
            ) as client:
                if self._may_start_instead_of(address):
                    with suppress(RequestError):
                        client.ping()  # not made again: if nothing listens, a server is started at once
                return request(client)

        return self._ask(at)

    def ask_version_1(self, request: Callable[[Version1Client], T]) -> Answer[T]:
        """Make a request over version 1 of the protocol. Raises the errors of ``Version1Client``."""
        if self.servers:
            raise ValueError("--server: version 1 of the protocol is for one server; use --host and --port")

        def at(address: Address, _token: str | None) -> T:
            arguments = _client_arguments(address)
            retry = Retry.none() if self._may_start_instead_of(address) else self._retry()
            with Version1Client(
                *arguments, timeout=self.timeout, retry=retry, **self._tls(address)
            ) as client:
                return request(client)

        return self._ask(at)

    def ask_async(self, request: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> Answer[T]:
        """Make requests with an asyncio client, in an event loop of their own; it sends nothing again.

        ``request`` raises ``ConnectFailed`` only if no server was there, so that one may be started.
        """

        async def with_servers() -> T:
            async with AsyncClient(
                servers=self.servers,
                # What hangs is sent again by ``request``, elsewhere.
                timeout=replace(self.timeout, ping=PING_OF_ONE if self.retries else None),
                retry=Retry.none(),
                token=self.token,
                **self.tls.arguments(),
            ) as client:
                return await request(client)

        if self.servers:
            return Answer(asyncio.run(with_servers()), ", ".join(self.servers), embedded=False)

        async def with_client(address: Address, token: str | None) -> T:
            arguments = _client_arguments(address)
            async with AsyncClient(
                *arguments, timeout=self.timeout, retry=Retry.none(), token=token, **self._tls(address)
            ) as client:
                return await request(client)

        return self._ask(lambda address, token: asyncio.run(with_client(address, token)))

    def _retry(self) -> Retry:
        return Retry(attempts=self.retries + 1) if self.retries else Retry.none()

    def _may_start_instead_of(self, address: Address) -> bool:
        """Whether to start a server if none is at this address."""
        is_default = address == self.choice.address and not self.choice.configured
        return self.may_start_one and is_default and not self.tls.tls

    def _tls(self, address: Address) -> TlsArguments:
        """Return how to encrypt: nothing for a server that is started for the call."""
        options = self.tls if address == self.choice.address else TlsOptions()
        return options.arguments()

    def _ask(self, request_at: Callable[[Address, str | None], T]) -> Answer[T]:
        there = self.choice.address
        try:
            return Answer(request_at(there, self.token), str(there), embedded=False)
        except ConnectFailed:
            if not self._may_start_instead_of(there):
                raise
        if not server_is_installed():
            raise ServerNotInstalled(
                f"nothing listens on {there}; install vipsrv to have a server started for the call, or name "
                "a running server with --host and --port"
            )
        with EmbeddedServer() as here:
            if not self.quiet:
                note = f"nothing listens on {there}, so a server was started for this call on {here}"
                typer.echo(f"{self.program}: {note}", err=True)
            return Answer(request_at(here, None), str(here), embedded=True)


def several_servers(given: Sequence[str] | None, host: str | None, port: int | None) -> tuple[str, ...]:
    """Return the servers of ``--server``, or of ``VIPSRV_SERVERS`` if no server is named; or none.

    Raises ``ValueError``.
    """
    if given:
        if host is not None or port is not None:
            raise ValueError("--server: replaces --host and --port; leave those out")
        return tuple(map(str, parse_servers(given, "--server")))
    found = servers_of_environment() if host is None and port is None else None
    return tuple(map(str, found or ()))


def _client_arguments(address: Address) -> tuple[str, int | None]:
    return (str(address), None) if address.path or address.tls else (address.host, address.port)
