"""Where a server listens."""

from dataclasses import dataclass
from typing import Self

from vipsrv.client.timeouts import Timeout
from vipsrv.errors import ClientTimeout, ConnectFailed
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT

UNIX = "unix:"
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP ``host`` and ``port``, or the ``path`` of a unix socket."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.port <= MAX_PORT:
            raise ValueError(f"port: must be from 1 to {MAX_PORT}, not {self.port}")

    @classmethod
    def of(cls, host: str, port: int, address: str | None = None) -> Self:
        """From what a client was given; ``address``, where there is one, has the form ``unix:/path``.

        Raises ``ValueError``.
        """
        if address is None:
            return cls(host, port)
        path = address.removeprefix(UNIX)
        if path == address or not path:
            raise ValueError(f"address: must look like unix:/path, not {address!r}; TCP takes host and port")
        return cls(path=path)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def connect_error(
    error: OSError | UnicodeError, address: Address, timeout: Timeout
) -> ClientTimeout | ConnectFailed:
    """What to raise for a failed attempt to connect; a UnicodeError is a name that no host can have."""
    if isinstance(error, TimeoutError) and error.errno is None:  # with a number it is the system's, not ours
        return ClientTimeout(f"no connection to {address} within {timeout.connect} s")
    return ConnectFailed(f"no connection to {address}: {reason(error)}")


def reason(error: Exception) -> str:
    """The words of an error of the system, without its number."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused, nothing listens there"  # asyncio's own words do not say so
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
