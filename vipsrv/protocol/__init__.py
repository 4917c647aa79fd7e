"""The wire protocol, versions 1 and 2: bytes only, no sockets, no clock. ``README.md`` specifies it."""

from vipsrv.protocol.errors import pack_error, unpack_error
from vipsrv.protocol.frames import (
    DEFAULT_HEIGHT,
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_WIDTH,
    FIRST_ERROR_STATUS,
    HEADER,
    MAX_META_SIZE,
    OK_STATUS,
    REPLY,
    V1_MAX_SIZE,
    V1_REPLY,
    V1_REQUEST,
    Header,
    Kind,
    pack_message,
)
from vipsrv.protocol.reader import (
    BodyReceived,
    Event,
    MessageEnded,
    MessageStarted,
    ReplyReader,
    RequestReader,
)

__all__ = [
    "DEFAULT_HEIGHT",
    "DEFAULT_HOST",
    "DEFAULT_PORT",
    "DEFAULT_WIDTH",
    "FIRST_ERROR_STATUS",
    "HEADER",
    "MAX_META_SIZE",
    "OK_STATUS",
    "REPLY",
    "V1_MAX_SIZE",
    "V1_REPLY",
    "V1_REQUEST",
    "BodyReceived",
    "Event",
    "Header",
    "Kind",
    "MessageEnded",
    "MessageStarted",
    "ReplyReader",
    "RequestReader",
    "pack_error",
    "pack_message",
    "unpack_error",
]
