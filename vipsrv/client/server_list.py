"""The servers of a client that was given several: what one call sees of them, and what is done in between.

::

    ServerNames ── addresses ──► Servers ◄── choose, end ── ServersOfCall ──► call_steps
         ▲                          ▲                           │
         └──────── answers ─────────┴── probed ──── caller ◄────┘ Resolve, Probe (done in the background)

Without input and output: the steps go to the caller, ``BlockingCaller`` or ``AsyncCaller``.
"""

import random
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vipsrv.address import Address
from vipsrv.client.attempts import with_text
from vipsrv.client.calls import ClientServers, OneServer, Outcome, Probe, Resolve, Server, Step
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.hedge import Hedge, Hedging
from vipsrv.client.retry import RetryBudget
from vipsrv.client.server_address import server_address
from vipsrv.client.server_names import (
    Answers,
    ServerNames,
    is_name,
    parse_servers,
    servers_of_environment,
)
from vipsrv.client.servers import Place, Servers
from vipsrv.client.servers import Server as Known
from vipsrv.client.timeouts import Timeout
from vipsrv.client.tls import ClientTls, FilePath, TlsChoice, choose_tls
from vipsrv.errors import ConnectFailed, RequestError, VipsrvError

MOST_TO_CONNECT = 2.0
"""Seconds: a server of several that takes longer to connect is left out."""


class ServerChoice(NamedTuple):
    """The servers of a client, and how it connects to them."""

    servers: ClientServers
    timeout: Timeout
    tls: Callable[[Server], ClientTls | None]
    """How to encrypt the connections to a server."""


def choose_servers(
    host: str | None,
    port: int | None,
    address: str | None,
    servers: Sequence[str] | None,
    *,
    timeout: Timeout,
    sends_again: bool,
    tls: TlsChoice,
    ca: FilePath | None,
    cert: FilePath | None,
    key: FilePath | None,
) -> ServerChoice:
    """Return the servers for the arguments of a client.

    Without any of them, ``VIPSRV_SERVERS`` decides if it is set. ``sends_again`` is whether the client sends
    again what failed. Raises ``ValueError`` for servers and TLS
    options that exclude each other, and ``OSError`` for a file that cannot be read.
    """
    configured: Sequence[Address] | None = None
    if servers is not None:
        if (host, port, address) != (None, None, None):
            raise ValueError("servers: replaces host, port and address; leave those out")
        configured = parse_servers(servers)
    elif (host, port, address) == (None, None, None):
        configured = servers_of_environment()
    if configured is None:
        one, secured = choose_tls(server_address(host, port, address), tls, ca=ca, cert=cert, key=key)
        return ServerChoice(
            OneServer(one),
            timeout.decided(several=False, sends_again=sends_again),
            lambda _server: secured,
        )
    encrypted = [one for one in configured if one.tls or (tls and not one.path)]
    context: ssl.SSLContext | None = None
    if encrypted or ca or cert or key:
        _, secured = choose_tls((encrypted or configured)[0], tls, ca=ca, cert=cert, key=key)
        context = None if secured is None else secured.context
    configured = [replace(one, tls=True) if one in encrypted else one for one in configured]
    known = ServerList(configured)

    def tls_of(server: Server) -> ClientTls | None:
        if context is None or isinstance(server, EmbeddedServer) or not server.tls:
            return None
        return ClientTls(context, known.names.tls_name(server))

    if len(configured) == 1 and not is_name(configured[0]):
        only = OneServer(configured[0])
        return ServerChoice(only, timeout.decided(several=False, sends_again=sends_again), tls_of)
    connect = MOST_TO_CONNECT if timeout.connect is None else min(MOST_TO_CONNECT, timeout.connect)
    timeout = replace(timeout.decided(several=True, sends_again=sends_again), connect=connect)
    return ServerChoice(known, timeout, tls_of)


class ServerList:
    """The servers of one client, for all its calls. ``clock`` and ``chance`` (0 to 1) are for tests."""

    def __init__(
        self,
        configured: Sequence[Address],
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.names = ServerNames(configured, clock=clock)
        self.servers: Servers[Address] = Servers(self.names.addresses(), clock=clock, chance=chance)

    only: None = None
    """There are several, or they may change."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that are known now."""
        return tuple(str(server.endpoint) for server in self.servers.all)

    def for_call(self) -> "ServersOfCall":
        """Return what one call sees of the servers."""
        return ServersOfCall(self)

    def forget(self) -> None:
        """In a forked child: take new locks."""
        self.servers.forget()

    def resolved(self, answers: Answers) -> None:
        """Go on with what the names were resolved to."""
        self.servers.replace(self.names.answers(answers))

    def probe(self, server: Known[Address]) -> Probe:
        """Return the step that probes a server."""
        return Probe(server.endpoint, lambda error: self.servers.probed(server, error))


def hedging_of(hedge: Hedge | None, servers: ClientServers, budget: RetryBudget) -> Hedging | None:
    """Return the hedging of a client, if it is asked for and there is more than one server."""
    return Hedging(hedge, servers, budget) if hedge is not None and isinstance(servers, ServerList) else None


class ServersOfCall:
    """The ``calls.Servers`` of one call: it avoids the servers that have failed this call."""

    __slots__ = ("_failures", "_list", "_place")

    def __init__(self, servers: ServerList) -> None:
        self._list = servers
        self._place: Place[Address] | None = None
        self._failures: dict[Known[Address], VipsrvError] = {}

    def choose(
        self, until: float | None, preferred: Server | None = None
    ) -> Generator[Step, Outcome, Server]:
        """Return the server for the next attempt: the ``preferred`` one, if it is well.

        Raises ``ConnectFailed`` if no name of a server could be resolved.
        """
        names, servers = self._list.names, self._list.servers
        if (due := names.due()) or not servers.all:
            wait = not servers.all
            yield Resolve(due or names.names, self._list.resolved, wait=wait, until=until)
        for server in servers.due():
            yield self._list.probe(server)
        try:
            self._place = servers.choose(self._failures, preferred)
        except LookupError:
            faults = "; ".join(f"{name}: {fault}" for name, fault in names.faults.items())
            raise ConnectFailed(f"no server is known by its name: {faults or 'no answer yet'}") from None
        return self._place.server.endpoint

    def succeeded(self, server: Server) -> None:  # noqa: ARG002 - of the protocol
        """Note that the attempt succeeded."""
        self._end(None)

    def failed(self, server: Server, error: VipsrvError) -> bool:  # noqa: ARG002 - of the protocol
        """Note that the attempt failed; return whether another server is well."""
        if self._place is not None:
            self._failures[self._place.server] = error
        if not isinstance(error, RequestError):
            self._list.names.failed()
        self._end(error)
        return self._list.servers.has_other(self._failures)

    def abandoned(self, server: Server) -> None:  # noqa: ARG002 - of the protocol
        """Note that the attempt has ended with the call."""
        self._end(GeneratorExit())

    def explain(self, error: VipsrvError) -> VipsrvError:
        """Return the error of the call, with the failures of all servers if several have failed."""
        if len(self._failures) < 2:  # noqa: PLR2004 - several
            return error
        told = "; ".join(f"{server.endpoint}: {failure}" for server, failure in self._failures.items())
        return with_text(error, f"{error}; the last failure of each server: {told}")

    def _end(self, error: BaseException | None) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._list.servers.end(place, error)
