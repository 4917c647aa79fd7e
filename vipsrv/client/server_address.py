"""The address of the server that a client connects to, and the errors of connecting."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from vipsrv.address import MAX_PORT, TLS_PREFIX, UNIX_PREFIX, Address, Wire, is_service_link
from vipsrv.client.timeouts import Timeout
from vipsrv.client.tls import tls_fault
from vipsrv.errors import ClientTimeout, ConnectFailed, TlsFailed
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT

HOST_VARIABLE = "VIPSRV_HOST"
PORT_VARIABLE = "VIPSRV_PORT"
LISTEN_VARIABLE = "VIPSRV_LISTEN"

_NO_HTTP = (
    "{} is an address for HTTP, which this client does not speak; use curl or any client of HTTP, or the "
    "server's address without http"
)


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The server to connect to. ``configured`` is false if it is the default address."""

    address: Address
    configured: bool


def choose_server(
    host: str | None = None, port: int | None = None, environment: Mapping[str, str] = os.environ
) -> ServerChoice:
    """Choose the server from a host and port that were given, then the environment, then the defaults.

    ``VIPSRV_HOST`` and ``VIPSRV_PORT`` replace arguments that are ``None``; an empty variable counts as
    unset. The host may be ``unix:/path`` or ``tls://HOST:PORT``. Raises ``ValueError``.
    """
    if host is None:
        host = environment.get(HOST_VARIABLE) or None
        if host and host.startswith((UNIX_PREFIX, TLS_PREFIX)) and port is not None:
            host = None  # a port that was given wins over the whole address of the environment
    configured = host is not None
    if host is None:
        host = DEFAULT_HOST
    elif _is_for_http(host):
        raise ValueError(f"host: {_NO_HTTP.format(host)}")
    elif host.startswith(UNIX_PREFIX):
        return ServerChoice(_unix_address(host), configured=True)
    elif host.startswith(TLS_PREFIX):
        return ServerChoice(_tls_address(host, port), configured=True)
    if port is None:
        port = _port_from(environment)
    configured = configured or port is not None
    return ServerChoice(_tcp_address(host, DEFAULT_PORT if port is None else port), configured=configured)


def choose_listener(
    host: str | None = None, port: int | None = None, environment: Mapping[str, str] = os.environ
) -> Address:
    """Return where to reach the server that ``vipsrv serve`` with this environment starts.

    That is the first address of ``VIPSRV_LISTEN`` that needs no TLS, or else its first one, unless a host or
    a port is given; otherwise as for ``choose_server``. Addresses for HTTP are passed over. Raises
    ``ValueError``.
    """
    listeners = [word.strip() for word in environment.get(LISTEN_VARIABLE, "").split(",")]
    if host is not None or port is not None or not any(listeners):
        return choose_server(host, port, environment).address.reachable()
    try:
        addresses = [Address.parse(word) for word in listeners]
    except ValueError as error:
        raise ValueError(f"{LISTEN_VARIABLE}: {error}") from None
    addresses = [one for one in addresses if one.wire is Wire.BINARY]
    if not addresses:
        raise ValueError(f"{LISTEN_VARIABLE}: all addresses are for HTTP, which this client does not speak")
    address = next((one for one in addresses if not one.tls), addresses[0])
    if not address.path and not address.port:
        raise ValueError(f"{LISTEN_VARIABLE}: port 0 stands for a free port; give its number with --port")
    return address.reachable()


def server_address(host: str | None, port: int | None, address: str | None = None) -> Address:
    """Return the address for the arguments of a client.

    ``address``, if given, is ``unix:/path`` or ``tls://HOST:PORT``. Raises ``ValueError``.
    """
    if address is not None and _is_for_http(address):
        raise ValueError(f"address: {_NO_HTTP.format(address)}")
    if address is not None and address.startswith(TLS_PREFIX):
        return _tls_address(address, None)
    if address is not None:
        return _unix_address(address)
    return choose_server(host, port).address


def _is_for_http(text: str) -> bool:
    return text.startswith(("http:", "https:", "http+unix:", "ops:", "ops+"))


def _tcp_address(host: str, port: int) -> Address:
    if not 1 <= port <= MAX_PORT:
        raise ValueError(f"port: must be from 1 to {MAX_PORT}, not {port}")
    return Address(host, port)


def _tls_address(text: str, port: int | None) -> Address:
    if port is not None:
        raise ValueError(f"port: {text!r} has one already")
    address = Address.parse(text)
    return Address(address.host, _tcp_address(address.host, address.port).port, tls=True)


def _unix_address(text: str) -> Address:
    path = text.removeprefix(UNIX_PREFIX)
    if path == text or not path:
        raise ValueError(
            f"address: must look like unix:/path or tls://HOST:PORT, not {text!r}; TCP takes host and port"
        )
    return Address(path=path)


def _port_from(environment: Mapping[str, str]) -> int | None:
    text = environment.get(PORT_VARIABLE, "")
    if not text or is_service_link(text):
        return None
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= MAX_PORT:
        raise ValueError(f"{PORT_VARIABLE}: must be a port from 1 to {MAX_PORT}, not {text[:40]!r}")
    return int(text)


def connect_error(
    error: OSError | UnicodeError, address: Address, timeout: Timeout
) -> ClientTimeout | ConnectFailed:
    """Return the error to raise for a failed attempt to connect.

    ``UnicodeError`` is raised for a name that cannot be a host name.
    """
    if isinstance(error, TimeoutError) and error.errno is None:  # with an errno it is the system's timeout
        return ClientTimeout(f"no connection to {address} within {timeout.connect} s")
    return ConnectFailed(f"no connection to {address}: {reason(error)}")


def handshake_error(
    error: OSError | UnicodeError, address: Address, timeout: Timeout
) -> ClientTimeout | ConnectFailed:
    """Return the error to raise for an attempt that failed when TLS was to begin."""
    fault = tls_fault(error, address.host)
    if fault is None and type(error) in {ConnectionResetError, ConnectionAbortedError, BrokenPipeError}:
        fault = tls_fault(ssl.SSLEOFError(), address.host)
    if fault is not None:
        return TlsFailed(f"no connection to {address}: {fault}")
    return connect_error(error, address, timeout)


def reason(error: Exception) -> str:
    """Return the text of a system error without its number."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused, nothing listens there"  # asyncio's own text does not say so
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
