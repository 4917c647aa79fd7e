"""The servers that a client was told, as addresses to connect to: host names stand for all their addresses.

::

    ["img.example:65432", "10.0.0.7:65432", "unix:/run/vipsrv"]
           │ resolved: at first, from time to time, and after failures
           ▼
    10.0.0.3:65432, 10.0.0.4:65432, 10.0.0.7:65432, unix:/run/vipsrv

Without input and output: a client resolves the names that are ``due`` and gives the ``answers``.
"""

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vipsrv.address import MAX_PORT, TLS_PREFIX, UNIX_PREFIX, Address, Wire
from vipsrv.protocol import DEFAULT_PORT

SERVERS_VARIABLE = "VIPSRV_SERVERS"

RESOLVE_EVERY = 30.0
"""Seconds after which names are resolved again."""

RESOLVE_AFTER_FAILURE = 1.0
"""Seconds: after a failure of a server names are resolved again, but no more often than this."""

Resolver = Callable[[str, int], Sequence[str]]
"""Returns the IP addresses of a host name, for a port. Raises ``OSError``."""

Answers = Mapping[Address, Sequence[str] | OSError]
"""What a resolver said, by the server with the name."""


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host name, each once, as the system resolves it. Raises ``OSError``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a name that cannot be a host name
        raise OSError(str(error)) from error
    return list(dict.fromkeys(_text(address) for *_, address in found))


def _text(address: tuple[Any, ...]) -> str:
    host, _, *more = address
    scope = more[-1] if more else 0  # of a link-local IPv6 address
    return f"{host}%{scope}" if scope and "%" not in host else str(host)


def parse_server(text: str) -> Address:
    """Return the address for ``HOST:PORT``, ``HOST``, ``tls://HOST:PORT`` or ``unix:/path``.

    Without a port it is the usual one. Raises ``ValueError``.
    """
    rest = text.removeprefix(TLS_PREFIX)
    prefix = text[: len(text) - len(rest)]
    if rest and not text.startswith(UNIX_PREFIX) and "/" not in rest:
        if rest.count(":") > 1 and not rest.startswith("["):
            rest = f"[{rest}]"  # an IPv6 address without a port
        if ":" not in rest or rest.endswith("]"):
            rest = f"{rest}:{DEFAULT_PORT}"
    try:
        address = Address.parse(prefix + rest)
    except ValueError:
        raise ValueError(f"{text!r} is not HOST:PORT, HOST, tls://HOST:PORT or unix:/path") from None
    if address.wire is not Wire.BINARY:
        raise ValueError(f"{text!r} is an address for HTTP, which this client does not speak")
    if not address.path and not 1 <= address.port <= MAX_PORT:
        raise ValueError(f"{text!r}: the port must be from 1 to {MAX_PORT}")
    return address


def parse_servers(texts: Iterable[str], what: str = "servers") -> tuple[Address, ...]:
    """Return the addresses of a list of servers, each once. Raises ``ValueError``, also if there is none."""
    if isinstance(texts, str):
        raise TypeError(f"{what}: must be a list of addresses, not one text; put it in brackets")
    try:
        addresses = tuple(dict.fromkeys(parse_server(text.strip()) for text in texts))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if not addresses:
        raise ValueError(f"{what}: names no server")
    return addresses


def servers_of_environment(environment: Mapping[str, str] = os.environ) -> tuple[Address, ...] | None:
    """Return the servers of ``VIPSRV_SERVERS``, separated by commas; ``None`` if it is unset or empty."""
    text = environment.get(SERVERS_VARIABLE, "").strip()
    return parse_servers(text.split(","), SERVERS_VARIABLE) if text else None


class ServerNames:
    """The configured servers of one client; ``clock`` is for tests."""

    def __init__(self, configured: Sequence[Address], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._configured = tuple(configured)
        self._clock = clock
        self.names = tuple(one for one in self._configured if is_name(one))
        """Those that are host names."""
        self._known: dict[Address, tuple[Address, ...]] = {}  # the addresses of each name
        self._tls_names: dict[Address, str] = {one: one.host for one in self._configured}
        self._next = self._clock()  # when to resolve again
        self._soonest = self._next
        self.faults: dict[Address, OSError] = {}
        """Why the names that could not be resolved the last time could not be."""

    @property
    def known(self) -> bool:
        """Whether each name has been resolved, or was tried, at least once."""
        return all(name in self._known or name in self.faults for name in self.names)

    def due(self) -> tuple[Address, ...]:
        """Return the servers whose names are to be resolved now; ``answers`` must follow."""
        if not self.names or self._clock() < self._next:
            return ()
        self._plan()
        return self.names

    def failed(self) -> None:
        """Note that a server failed: perhaps the names stand for other addresses by now."""
        self._next = min(self._next, self._soonest)

    def answers(self, answers: Answers) -> list[Address]:
        """Note what the names were resolved to; return the addresses of all servers.

        A name that could not be resolved keeps the addresses that it had.
        """
        for name, answer in answers.items():
            if isinstance(answer, OSError):
                self.faults[name] = answer
                continue
            self.faults.pop(name, None)
            self._known[name] = tuple(replace(name, host=host) for host in answer)
            self._tls_names.update(dict.fromkeys(self._known[name], name.host))
        return self.addresses()

    def addresses(self) -> list[Address]:
        """Return the addresses of all servers that are known, in the order of the configuration."""
        expanded = (self._known.get(one, ()) if one in self.names else (one,) for one in self._configured)
        return list(dict.fromkeys(address for some in expanded for address in some))

    def tls_name(self, address: Address) -> str:
        """Return the name that the certificate of a server has to be for."""
        return self._tls_names[address]

    def _plan(self) -> None:
        now = self._clock()
        self._next, self._soonest = now + RESOLVE_EVERY, now + RESOLVE_AFTER_FAILURE


def is_name(address: Address) -> bool:
    """Whether a server is given by a host name, which has to be resolved."""
    if address.path:
        return False
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return True
    return False
