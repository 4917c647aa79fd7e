"""The layout of headers and meta on the wire, packed and unpacked. No state, no I/O.

All integers are unsigned and big-endian. A version 2 message starts with the one value that has no meaning in
version 1: a size of zero.
"""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vipsrv.errors import ProtocolError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 65432
DEFAULT_WIDTH = 800
DEFAULT_HEIGHT = 600

V1_REQUEST = struct.Struct("!III")
"""Image size in bytes, target width and height in pixels."""

V1_REPLY = struct.Struct("!I")
"""Size of the result in bytes."""

HEADER = struct.Struct("!I4sBBHIIQ")
"""Version 2: zero, magic, version, kind, status, request id, meta size, body size."""

MAGIC = b"VIPS"
_START = bytes(4) + MAGIC
VERSION = 2
MAX_META_SIZE = 65_536
REPLY = 0x80
"""The kind of a reply is the kind of its request plus this."""

OK_STATUS = 200
"""The status of every reply that is not an error."""

CLOSING = "closing"
"""The name in the meta of a reply by which a server asks the client to connect anew."""

FIRST_ERROR_STATUS = 400
LAST_ERROR_STATUS = 599

_TLS_HANDSHAKE = 22
_TLS_MAJOR_VERSION = 3
_TLS_CLIENT_HELLO = 1

V1_MAX_SIZE = 2**32 - 1
"""The size in bytes of the largest image that a version 1 header can announce."""


class Kind(IntEnum):
    """The kind of a version 2 message."""

    HELLO = 1
    RESIZE = 2
    INFO = 3
    UPLOAD_STATUS = 4
    CANCEL = 5
    PING = 6


@dataclass(slots=True)
class Header:
    """The 28 bytes at the start of every version 2 message; sizes are in bytes."""

    kind: int
    status: int
    request_id: int
    meta_size: int
    body_size: int

    def pack(self) -> bytes:
        """The header as 28 bytes."""
        return HEADER.pack(
            0, MAGIC, VERSION, self.kind, self.status, self.request_id, self.meta_size, self.body_size
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> "Header":
        """The header in 28 bytes. Raises ``ProtocolError`` if they are not a version 2 header."""
        _zero, _magic, version, kind, status, request_id, meta_size, body_size = HEADER.unpack(data)
        check_start(data)
        if version != VERSION:
            raise ProtocolError(f"version {version} of the protocol is not supported, only 1 and 2")
        return cls(kind, status, request_id, meta_size, body_size)

    def check_meta_size(self, most: int = MAX_META_SIZE) -> None:
        """Raise ``ProtocolError`` if the header announces more than ``most`` bytes of meta."""
        if self.meta_size > most:
            raise _meta_too_long(self.meta_size, most)


def check_start(data: bytes | bytearray) -> None:
    """Raise ``ProtocolError`` if ``data`` cannot be the beginning of a version 2 header."""
    if not _START.startswith(data[: len(_START)]):
        raise ProtocolError("the header does not start with a zero and the letters VIPS")


def is_client_hello(data: bytes | bytearray) -> bool:
    """Whether 12 bytes are the beginning of a TLS ClientHello (RFC 8446, sections 4.1.2 and 5.1).

    A version 1 header with the same bytes would ask for a result of more than 65,535 pixels a side, which
    its JPEG cannot have; one that announces an image of as many bytes and a possible size is none.

    ::

        record: type 22, version 3.x, length; handshake: type 1, length (3 bytes); version 3.x, random
    """
    return (
        data[0] == _TLS_HANDSHAKE
        and data[1] == data[9] == _TLS_MAJOR_VERSION
        and data[5] == _TLS_CLIENT_HELLO
        and data[6] == 0
    )


def pack_message(
    kind: int,
    request_id: int,
    meta: dict[str, Any] | bytes | None = None,
    *,
    status: int = 0,
    body_size: int = 0,
) -> bytes:
    """Return header and meta of a version 2 message; ``body_size`` bytes of body must follow.

    ``meta`` is an object or its JSON. Raises ``ProtocolError`` if it is longer than 65,536 bytes.
    """
    encoded = (meta or b"") if meta is None or isinstance(meta, bytes) else pack_meta(meta)
    size = len(encoded)
    if size > MAX_META_SIZE:
        raise _meta_too_long(size, MAX_META_SIZE)
    # Not by way of a ``Header``, since each request and reply is packed here.
    return HEADER.pack(0, MAGIC, VERSION, kind, status, request_id, size, body_size) + encoded


def _meta_too_long(size: int, most: int) -> ProtocolError:
    return ProtocolError(f"the meta has {size} bytes; {most} are allowed")


def pack_meta(meta: dict[str, Any]) -> bytes:
    """The JSON of a meta."""
    return _encode_json(meta).encode()


def unpack_meta(data: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in a meta; an empty meta is an empty object. Raises ``ProtocolError``."""
    if not data:
        return {}
    try:
        # Decoded first, because json.loads would also accept UTF-16 and UTF-32.
        meta = _decode_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ProtocolError("the meta is not a JSON object")
    return meta


def _refuse_constant(name: str) -> None:
    # Python's json reads and writes NaN and Infinity, which are not valid JSON.
    raise ValueError(f"{name} is not a JSON value")


# Created once: json.dumps and json.loads would create them again for every message.
_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode_json = json.JSONDecoder(parse_constant=_refuse_constant).decode
