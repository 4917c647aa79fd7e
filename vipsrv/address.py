"""The address of a server: where it listens, and where a client connects to."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

UNIX_PREFIX = "unix:"
TLS_PREFIX = "tls://"
MAX_PORT = 65_535

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens on it here


def is_service_link(text: str) -> bool:
    """Whether a port's variable has a value of the form ``tcp://10.0.0.1:65432``.

    Kubernetes sets ``VIPSRV_PORT`` to it in the containers beside a Service named vipsrv, unless the pod has
    ``enableServiceLinks: false``. It is no setting.
    """
    return "://" in text


class Wire(StrEnum):
    """What is spoken at an address: the binary protocol, HTTP, or HTTP for the operator of the server."""

    BINARY = "binary"
    HTTP = "http"
    OPS = "ops"


_UNIX_PREFIXES = {Wire.BINARY: UNIX_PREFIX, Wire.HTTP: "http+unix:", Wire.OPS: "ops+unix:"}

_TCP_PREFIXES = {
    (Wire.BINARY, False): "",
    (Wire.BINARY, True): TLS_PREFIX,
    (Wire.HTTP, False): "http://",
    (Wire.HTTP, True): "https://",
    (Wire.OPS, False): "ops://",
    (Wire.OPS, True): "ops+tls://",
}
"""The beginning of an address as a text, by what is spoken there and whether it is encrypted."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP ``host`` and ``port``, with or without ``tls``, or the ``path`` of a unix socket.

    ``wire`` is what is spoken there.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    wire: Wire = Wire.BINARY

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST:PORT`` or ``[IPV6]:PORT``, also after ``tls://``, ``http://`` or ``https://``, or
        ``unix:/path``, or ``http+unix:/path``.

        The texts that ``str`` makes of an address for the operator are read as well. Raises ``ValueError``.
        """
        for wire, prefix in _UNIX_PREFIXES.items():
            if text.startswith(prefix):
                path = text.removeprefix(prefix)
                if not path:
                    raise ValueError(f"{text!r} has no path after {prefix}")
                return cls(path=path, wire=wire)
        if text.startswith("tls:") and not text.startswith(TLS_PREFIX):
            raise ValueError(f"{text!r} is not {TLS_PREFIX}HOST:PORT")
        (wire, tls), prefix = next(
            (kind, prefix) for kind, prefix in reversed(_TCP_PREFIXES.items()) if text.startswith(prefix)
        )
        host, colon, port = text.removeprefix(prefix).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or "/" in host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(
                f"{text!r} is not HOST:PORT, [IPV6]:PORT, tls://HOST:PORT, http://HOST:PORT, "
                "https://HOST:PORT, unix:/path or http+unix:/path"
            )
        return cls(host=host, port=int(port), tls=tls, wire=wire)

    def reachable(self) -> "Address":
        """Return where a client on the same machine reaches a server that listens here.

        An address that stands for all addresses of the machine becomes that of the loopback interface.
        """
        return replace(self, host=_LOOPBACK.get(self.host, self.host))

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        if self.path:
            return f"{_UNIX_PREFIXES[self.wire]}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_TCP_PREFIXES[self.wire, self.tls]}{host}:{self.port}"
