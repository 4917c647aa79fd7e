"""The address of a server: where it listens, and where a client connects to."""

from dataclasses import dataclass
from typing import Self

UNIX_PREFIX = "unix:"
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP ``host`` and ``port``, or the ``path`` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/path``. Raises ``ValueError``."""
        if text.startswith(UNIX_PREFIX):
            path = text.removeprefix(UNIX_PREFIX)
            if not path:
                raise ValueError(f"{text!r} has no path after unix:")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT or unix:/path")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        if self.path:
            return f"{UNIX_PREFIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
