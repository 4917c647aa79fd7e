"""The address of a server: where it listens, and where a client connects to."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP ``host`` and ``port``, with or without ``tls``, or the ``path`` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT``, both also after ``tls://``, or ``unix:/path``.

        Raises ``ValueError``.
        """
        if text.startswith(UNIX_PREFIX):
            path = text.removeprefix(UNIX_PREFIX)
            if not path:
                raise ValueError(f"{text!r} has no path after unix:")
            return cls(path=path)
        if text.startswith("tls:") and not text.startswith(TLS_PREFIX):
            raise ValueError(f"{text!r} is not {TLS_PREFIX}HOST:PORT")
        host, colon, port = text.removeprefix(TLS_PREFIX).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT, tls://HOST:PORT or unix:/path")
        return cls(host=host, port=int(port), tls=text.startswith(TLS_PREFIX))

    def reachable(self) -> "Address":
        """Return where a client on the same machine reaches a server that listens here.

        An address that stands for all addresses of the machine becomes that of the loopback interface.
        """
        return Address(_LOOPBACK.get(self.host, self.host), self.port, self.path, self.tls)

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        if self.path:
            return f"{UNIX_PREFIX}{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{TLS_PREFIX if self.tls else ''}{host}:{self.port}"
