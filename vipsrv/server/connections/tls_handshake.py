"""A connection during its TLS handshake: it has a place, a timeout, and little memory; then it hands over.

::

    WAITING ── first bytes ──► HANDSHAKE ── done ──► HANDED_OVER   the connection above serves the client
       │  no TLS                  │ failed
       └──────────► LINGERING ◄───┘    discards for a bounded time, so that the reply is not lost to a reset
                        │
    any of these ───────┴──► CLOSED
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias, cast

from vipsrv.address import Wire
from vipsrv.errors import BadRequest, RequestError, Unauthorized
from vipsrv.protocol import Kind, pack_error
from vipsrv.server.accounts import account_key
from vipsrv.server.connections.preliminary import MakeConnection, PreliminaryConnection
from vipsrv.server.connections.served import LINGER_SECONDS
from vipsrv.server.connections.tls_transport import TlsTransport, scratch
from vipsrv.server.connections.transport import peer_name
from vipsrv.server.context import ServerContext
from vipsrv.server.tls import ServerCertificates, certificate_fault

HANDSHAKE_SECONDS = 10.0
"""How long a client may take for the handshake: three round trips, and more on a slow line."""

MAX_HANDSHAKE_SIZE = 32 * 1024
"""Bytes that a client may send for its handshake: a certificate chain has a few thousand."""

HANDSHAKE_READ_SIZE = 4 * 1024
"""Bytes that are read at once until the handshake is done."""

_HANDSHAKE_RECORD = 0x16
"""The first byte that a client of TLS sends (RFC 8446, section 5.1)."""

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust the certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses the certificate; is it for this host name?",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses the certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client refuses the certificate: it has expired",
    "UNSUPPORTED_PROTOCOL": "the client speaks no version from TLS 1.2",
    "NO_SHARED_CIPHER": "the client offers no cipher that is allowed here",
    "HTTP_REQUEST": "the client speaks HTTP without TLS",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
}

_log = logging.getLogger(__name__)


Refusal: TypeAlias = Callable[[RequestError], bytes]
"""Makes the reply that concerns the whole connection."""

_TLS_ONLY = {
    Wire.BINARY: "this address takes TLS only; use --tls (tls=True)",
    Wire.HTTP: "this address takes TLS only; use https://",
    Wire.OPS: "this address takes TLS only; use https://",
}


def pack_refusal(error: RequestError) -> bytes:
    """Return the reply of the binary protocol that concerns the whole connection."""
    return pack_error(Kind.RESIZE, 0, error)


class HandshakeState(Enum):
    """The states of a handshake; see the diagram above."""

    WAITING = "waiting"
    HANDSHAKE = "handshake"
    HANDED_OVER = "handed over"
    LINGERING = "lingering"
    CLOSED = "closed"


TRANSITIONS: dict[HandshakeState, tuple[HandshakeState, ...]] = {
    HandshakeState.WAITING: (HandshakeState.HANDSHAKE, HandshakeState.LINGERING, HandshakeState.CLOSED),
    HandshakeState.HANDSHAKE: (HandshakeState.HANDED_OVER, HandshakeState.LINGERING, HandshakeState.CLOSED),
    HandshakeState.HANDED_OVER: (),
    HandshakeState.LINGERING: (HandshakeState.CLOSED,),
    HandshakeState.CLOSED: (),
}
"""The states that may follow each state."""


class TlsConnection(PreliminaryConnection):
    """A client until its handshake is done; ``make_connection`` makes the connection that follows.

    ``wire`` is what that speaks, and ``refusal`` makes the bytes that tell an error in it.
    ``peer`` is the client's address as a proxy has told it; without one, it is that of the socket.
    """

    _tls: ssl.SSLObject

    def __init__(
        self,
        context: ServerContext,
        certificates: ServerCertificates,
        make_connection: MakeConnection,
        peer: object = None,
        *,
        wire: Wire = Wire.BINARY,
        refusal: Refusal = pack_refusal,
    ) -> None:
        super().__init__(context, make_connection, HANDSHAKE_SECONDS)
        self._wire = wire
        self._refusal = refusal
        self._certificates = certificates
        self._peer = peer
        self._state = HandshakeState.WAITING
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._received = 0

    @property
    def state(self) -> HandshakeState:
        """The current state."""
        return self._state

    # Methods that the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place for the client, or close if there is none."""
        self._transport = cast("asyncio.Transport", transport)
        if self._peer is None:
            self._peer = peer_name(transport)
        if self._peer is None:
            self._enter(HandshakeState.CLOSED)
            self._transport.abort()
            return
        # One in excess makes its handshake, so that it can be told why it is closed.
        if not self._take_place(self._peer) and not self._context.connections.turn_away(self):
            self._context.connections.dropped += 1
            self._transport.abort()
        elif self._context.draining:  # accepted before the listeners were closed
            self.drain()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the state decides the size
        """Return the buffer for the next bytes."""
        return scratch if self._state is HandshakeState.LINGERING else scratch[:HANDSHAKE_READ_SIZE]

    def buffer_updated(self, nbytes: int) -> None:
        """Go on with the handshake after ``nbytes`` bytes have been read."""
        if self._state not in (HandshakeState.WAITING, HandshakeState.HANDSHAKE):
            return
        self._received += nbytes
        if self._state is HandshakeState.WAITING:
            if scratch[0] != _HANDSHAKE_RECORD:
                self._refuse_plain()
                return
            self._enter(HandshakeState.HANDSHAKE)
            tls = self._certificates.context(self._wire)
            self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(scratch[:nbytes])
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._received > MAX_HANDSHAKE_SIZE:
                self._fail(f"more than {MAX_HANDSHAKE_SIZE} bytes without an end")
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._fail(handshake_fault(error))
        else:
            self._hand_over()

    def eof_received(self) -> bool:
        """Close: the client has given up, or has only checked whether the port is open."""
        if self._state is HandshakeState.HANDSHAKE:
            self._log("the client closed the connection; perhaps it does not trust the certificate")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason makes no difference
        """Give the place back."""
        if self._state is not HandshakeState.CLOSED:
            self._enter(HandshakeState.CLOSED)
        self._leave()

    # Methods that the gateway calls

    def watch(self, now: float) -> None:
        """Close the connection if the handshake takes too long."""
        if now <= self.watch_at:
            return
        if self._state is HandshakeState.LINGERING or self._context.draining:
            self._transport.close()
        else:
            self._log(f"it was not done within {HANDSHAKE_SECONDS:g} s")
            self._transport.abort()

    def _enter(self, state: HandshakeState) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a handshake that is {self._state.value} cannot become {state.value}")
        self._state = state

    def _flush(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _hand_over(self) -> None:
        tls = TlsTransport(self._transport, self._tls, self._incoming, self._outgoing)
        has_certificate = self._tls.context.verify_mode is ssl.CERT_REQUIRED
        fault = certificate_fault(tls, time.time()) if has_certificate else None
        if fault is not None:
            self._tls.write(self._refusal(Unauthorized(fault)))
            self._flush()
            self._fail(fault)
            return
        self._flush()
        self._enter(HandshakeState.HANDED_OVER)
        self._leave()
        tls.start(self._make_connection(self._peer))

    def _refuse_plain(self) -> None:
        """Answer a client that does not speak TLS, in its own protocol if that is ours."""
        self._transport.write(self._refusal(BadRequest(_TLS_ONLY[self._wire])))
        self._fail("the client does not speak TLS")

    def _fail(self, reason: str) -> None:
        """Log the reason, and linger."""
        self._log(reason)
        self._enter(HandshakeState.LINGERING)
        self.watch_at = time.monotonic() + LINGER_SECONDS
        try:
            self._transport.write_eof()
        except OSError:  # the client has disconnected, which asyncio's transport does not catch
            self._transport.abort()

    def _log(self, reason: str) -> None:
        self._context.tls_failures += 1
        _log.info("the TLS handshake of %s failed: %s", account_key(self._peer), reason)


def handshake_fault(error: ssl.SSLError) -> str:
    """Return why a handshake failed, for the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not accepted: {error.verify_message}"
    reason = error.reason or str(error)
    return _REASONS.get(reason, reason.replace("_", " ").lower())
