"""Parses the PROXY protocol, version 2: the header by which a proxy names its client. Bytes only, no I/O.

HAProxy and the load balancers of the clouds send it at the start of a connection
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt). The text form, version 1, is not read.

::

    0    12 bytes  signature
    12   1 byte    version 2 and the command: LOCAL, for the proxy's own health checks, or PROXY
    13   1 byte    address family and transport
    14   2 bytes   length of what follows
    16   addresses: source, destination, source port, destination port; then TLVs, which are skipped
"""

import ipaddress
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from vipsrv.errors import ProtocolError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

MAX_LENGTH = 4096
"""Most bytes after the first 16. A header of addresses and usual TLVs has less than 500."""

_HEAD = struct.Struct("!12sBBH")
_VERSION = 2


class _Command(IntEnum):
    LOCAL = 0
    PROXY = 1


class _Transport(IntEnum):
    """The families and transports of a stream, and the one that says nothing."""

    UNSPEC = 0x00
    TCP4 = 0x11
    TCP6 = 0x21
    UNIX = 0x31


_ADDRESSES: dict[int, struct.Struct] = {
    _Transport.UNSPEC: struct.Struct(""),
    _Transport.TCP4: struct.Struct("!4s4sHH"),
    _Transport.TCP6: struct.Struct("!16s16sHH"),
    _Transport.UNIX: struct.Struct("!108s108s"),
}


class Unnamed(Enum):
    """A client without an address of the network."""

    PROXY = "proxy"
    """The proxy speaks for itself, or does not know for whom."""
    UNIX = "unix"
    """The client is connected to the proxy by a unix socket."""


@dataclass(frozen=True, slots=True)
class Source:
    """A client's numeric address and port."""

    host: str
    port: int


class ProxyHeaderReader:
    """Parses one header that arrives in pieces of any size.

    ``wanted`` bytes are missing to the next decision, and never more than belong to the header; ``client`` is
    set when it is complete.
    """

    def __init__(self) -> None:
        self.wanted = _HEAD.size
        self.client: Source | Unnamed | None = None
        self._pending = bytearray()
        self._size = _HEAD.size

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Feed at most ``wanted`` bytes. Raises ``ProtocolError`` as soon as they cannot be a header."""
        if not 0 < len(data) <= self.wanted:
            raise ValueError(f"{len(data)} bytes were fed, but {self.wanted} are wanted")
        self._pending += data
        if not SIGNATURE.startswith(self._pending[: len(SIGNATURE)]):
            raise ProtocolError(
                "the connection does not begin with a header of the PROXY protocol, version 2"
            )
        self.wanted = self._size - len(self._pending)
        if not self.wanted and self._size == _HEAD.size:
            self._head_complete()
        if not self.wanted:
            self.client = self._parse()

    def _head_complete(self) -> None:
        _, version, transport, length = _HEAD.unpack(self._pending)
        if version >> 4 != _VERSION or version & 0xF not in (_Command.LOCAL, _Command.PROXY):
            raise ProtocolError(f"version and command {version:#04x} of the PROXY protocol are unknown")
        if length > MAX_LENGTH:
            raise ProtocolError(f"the header of the PROXY protocol has {length} bytes, over {MAX_LENGTH}")
        if version & 0xF == _Command.PROXY:
            addresses = _ADDRESSES.get(transport)
            if addresses is None:
                raise ProtocolError(f"transport {transport:#04x} of the PROXY protocol is not a stream's")
            if length < addresses.size:
                raise ProtocolError(f"{length} bytes cannot hold the addresses of transport {transport:#04x}")
        self.wanted = length
        self._size += length

    def _parse(self) -> Source | Unnamed:
        _, version, transport, _ = _HEAD.unpack_from(self._pending)
        if version & 0xF == _Command.LOCAL or transport == _Transport.UNSPEC:
            return Unnamed.PROXY
        if transport == _Transport.UNIX:
            return Unnamed.UNIX
        source, _, port, _ = _ADDRESSES[transport].unpack_from(self._pending, _HEAD.size)
        return Source(str(ipaddress.ip_address(source)), port)
