"""A server that only receives uploads, with one of several engines of TLS, to compare their CPU time.

    python -m bench.baselines.tls_engine ENGINE CERTIFICATE KEY

Each upload is a header of version 2 with a body; the reply is a header without one. ``plain`` has no TLS.
"""

import asyncio
import ssl
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, cast

import uvloop

from vipsrv.protocol import HEADER, REPLY, Header
from vipsrv.server.connections.tls_transport import TlsTransport, scratch

ENGINES = ("plain", "vipsrv", "uvloop", "aiofastnet")

_BUFFER_SIZE = 1 << 20
"""Bytes: what vipsrv offers for a body of a few megabytes."""

_buffer = memoryview(bytearray(_BUFFER_SIZE))


class Receiver(asyncio.BufferedProtocol):
    """Receives uploads into one buffer, as large as the body that is missing or smaller."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as vipsrv does
        """Return room for a header or for a part of a body."""
        return _buffer[: self._missing or HEADER.size]

    def buffer_updated(self, nbytes: int) -> None:
        """Count what has arrived. A header arrives as a whole, because it is sent so."""
        if not self._missing:
            self._header = Header.unpack(bytes(_buffer[:nbytes]))
            self._missing = self._header.body_size
        else:
            self._missing -= nbytes
            if not self._missing:
                head = Header(self._header.kind | REPLY, 200, self._header.request_id, 0, 0)
                self._transport.write(head.pack())


class Handshake(asyncio.BufferedProtocol):
    """The least of a handshake before vipsrv's own transport for TLS."""

    _transport: asyncio.Transport

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - as vipsrv does
        """Return room for a part of the handshake."""
        return scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with the handshake."""
        self._incoming.write(scratch[:nbytes])
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.write(self._outgoing.read())
            return
        self._transport.write(self._outgoing.read())
        TlsTransport(self._transport, self._tls, self._incoming, self._outgoing).start(Receiver())


async def serve(engine: str, certificate: str, key: str) -> None:
    """Serve until the process is killed."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    create: Callable[..., Awaitable[Any]] = loop.create_server
    if engine == "plain":
        server = await create(Receiver, "127.0.0.1", 0)
    elif engine == "vipsrv":
        server = await create(lambda: Handshake(context), "127.0.0.1", 0)
    elif engine == "uvloop":
        server = await create(Receiver, "127.0.0.1", 0, ssl=context)
    else:
        aiofastnet = import_module("aiofastnet")  # young, and installed for this comparison only
        server = await aiofastnet.create_server(loop, Receiver, "127.0.0.1", 0, ssl=context)
    print(f"vipsrv listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:4]))
