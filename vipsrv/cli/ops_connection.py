"""A connection to the ops listener of a server by the standard library: HTTP over TCP or a unix socket."""

import http.client
import socket
from dataclasses import replace

from vipsrv.address import Address, Wire


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket at ``path``."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def ops_connection(address: Address, timeout: float) -> http.client.HTTPConnection:
    """Return a connection that is not open yet; ``timeout`` is seconds for each step."""
    at = address.reachable()
    if at.path:
        return _UnixConnection(at.path, timeout)
    return http.client.HTTPConnection(at.host, at.port, timeout=timeout)


def ops_address(text: str) -> Address:
    """Return the address in a flag or a setting, with or without ``http://``. Raises ``ValueError``."""
    address = Address.parse(text.removesuffix("/"))
    if address.tls or address.wire is Wire.OPS:
        raise ValueError(f"{text!r} is not HOST:PORT, http://HOST:PORT or unix:/path")
    return replace(address, wire=Wire.HTTP)
