"""Which server a client connects to, and the errors of connecting."""

from vipsrv.address import MAX_PORT, UNIX_PREFIX, Address
from vipsrv.client.timeouts import Timeout
from vipsrv.errors import ClientTimeout, ConnectFailed


def server_address(host: str, port: int, address: str | None = None) -> Address:
    """The address from a client's arguments; ``address``, if given, has the form ``unix:/path``.

    Raises ``ValueError``.
    """
    if address is None:
        if not 1 <= port <= MAX_PORT:
            raise ValueError(f"port: must be from 1 to {MAX_PORT}, not {port}")
        return Address(host, port)
    path = address.removeprefix(UNIX_PREFIX)
    if path == address or not path:
        raise ValueError(f"address: must look like unix:/path, not {address!r}; TCP takes host and port")
    return Address(path=path)


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
