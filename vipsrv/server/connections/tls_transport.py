"""TLS over a plain transport: decrypts into the connection's own buffers, encrypts what it writes.

::

    socket ⇄ transport of the event loop ⇄ TlsTransport ⇄ connection
                             ciphertext           plain bytes

It is in place of the event loop's own TLS because that takes a buffer of 256 KiB before the handshake, has no
half-close, and reports a failed handshake to nobody; docs/decisions/0030-tls-engine.md has the measurements.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

READ_SIZE = 256 * 1024
"""Bytes of one read. With 64 KiB an upload of 2.7 MB costs 0.3 ms more; 512 KiB save nothing. OpenSSL keeps a
buffer as large as the largest read of a connection."""

ENCRYPT_SIZE = 256 * 1024
"""Bytes that are encrypted before the kernel is asked to take them."""

JOIN_SIZE = 16 * 1024
"""Bytes: the most that one record holds. Shorter pieces are joined to be sent as one."""

MOST_ANSWERS = 4 * 1024
"""Bytes of answers to key updates that may wait for a client that does not read."""

CLOSE_SECONDS = 5.0
"""How long the client may take to read the last bytes of a connection that is closed."""

scratch = memoryview(bytearray(READ_SIZE))
"""Holds ciphertext that has just arrived. It is copied within one callback, so all connections share it."""

_log = logging.getLogger(__name__)


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a connection whose handshake is done, and the protocol of the plain transport below.

    The connection above is paused whenever bytes of it wait here or below, whatever limits it sets: so the
    memory of a result is free again when the connection is resumed.
    """

    def __init__(
        self, below: asyncio.Transport, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__()
        self._below = below
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._above: asyncio.BufferedProtocol
        self._buffer = scratch
        self._backlog: deque[memoryview] = deque()  # plain bytes that are not encrypted yet
        self._backlog_size = 0
        self._below_is_full = False
        self._told_to_pause = False
        self._reads = True
        self._discards = False  # what arrives, because our side is shut down
        self._closing = False
        self._below_ended = False  # nothing more arrives; what is here may not be decrypted yet
        self._end_read = False  # the client has said within TLS that no more bytes follow
        self._end_told = False
        self._shut_down = False
        self._end_sent = False
        self._lost = False

    def start(self, connection: asyncio.BufferedProtocol) -> None:
        """Take over the plain transport, and begin to serve ``connection``."""
        self._above = connection
        self._below.set_protocol(self)
        self._below.set_write_buffer_limits(high=0)
        connection.connection_made(self)
        self._decrypt()

    def limit_reads(self, size: int | None) -> None:
        """Read at most ``size`` bytes of ciphertext at a time; ``None`` restores the usual size."""
        self._buffer = scratch[:size]

    # The transport of the connection above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return facts about TLS, or about the socket."""
        if not self._lost:
            if name == "ssl_object":
                return self._tls
            if name == "sslcontext":
                return self._tls.context
            if name == "peercert":
                return self._tls.getpeercert()
        return self._below.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the connection."""
        return self._above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Serve another connection from now on."""
        self._above = cast("asyncio.BufferedProtocol", protocol)

    def is_closing(self) -> bool:
        """Whether it is closed or being closed."""
        return self._closing or self._below.is_closing()

    def is_reading(self) -> bool:
        """Whether the connection gets what arrives."""
        return self._reads and not self.is_closing()

    def pause_reading(self) -> None:
        """Stop giving the connection what arrives."""
        if self._reads and not self.is_closing():
            self._reads = False
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Give the connection what has arrived meanwhile, and what arrives."""
        if self._reads or self.is_closing():
            return
        self._reads = True
        self._below.resume_reading()
        # Later: the connection is in the middle of something.
        asyncio.get_running_loop().call_soon(self._decrypt)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel has not taken."""
        return self._backlog_size + self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Change nothing: the connection is always paused if the kernel does not take all of its bytes."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes. They must not change until the connection is not paused."""
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send the bytes of all pieces, which must not change until the connection is not paused."""
        if self.is_closing():
            return
        pieces = [memoryview(piece).cast("B") for piece in list_of_data if len(piece)]
        size = sum(map(len, pieces))
        if len(pieces) > 1 and size <= JOIN_SIZE:
            pieces = [memoryview(b"".join(pieces))]
        self._backlog.extend(pieces)
        self._backlog_size += size
        self._pump()

    def can_write_eof(self) -> bool:
        """Whether the sending side can be shut down alone."""
        return self._below.can_write_eof()

    def write_eof(self) -> None:
        """Shut down the sending side; nothing that arrives from now on reaches the connection but its end."""
        if not self._shut_down and not self.is_closing():
            self._shut_down = self._discards = True
            self._pump()

    def close(self) -> None:
        """Close when all bytes have been sent."""
        if not self.is_closing():
            self._closing = self._discards = True
            self._pump()

    def abort(self) -> None:
        """Close at once."""
        self._closing = self._discards = True
        self._below.abort()

    # The protocol of the transport below

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - one size for all
        """Return the buffer for ciphertext."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt ``nbytes`` bytes that have been read."""
        if not self._discards and not self._end_read:
            self._incoming.write(scratch[:nbytes])
            self._decrypt()

    def eof_received(self) -> bool:
        """Tell the connection the end of the client's bytes, after those that are still here."""
        self._below_ended = True
        self._decrypt()
        return True  # `_tell_end` closes

    def pause_writing(self) -> None:
        """Encrypt no more until the kernel has taken what is below."""
        self._below_is_full = True

    def resume_writing(self) -> None:
        """Encrypt more."""
        self._below_is_full = False
        # Later: the transport below is in the middle of a write, and must not be closed there.
        asyncio.get_running_loop().call_soon(self._pump)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._closing = self._discards = True
        self._backlog.clear()
        self._backlog_size = 0
        self._above.connection_lost(exc)
        # The connection refers to this transport: until the garbage collector finds that circle, OpenSSL's
        # buffers of an upload (280 KiB) would stay.
        self._lost = True
        del self._tls, self._incoming, self._outgoing

    # Both directions

    def _decrypt(self) -> None:
        """Give the connection what can be decrypted, as long as it reads."""
        if self._lost:
            return
        try:
            while self._reads and not self._discards and not self._end_read and self._holds_bytes():
                if not self._fill_buffer():
                    break
        except ssl.SSLError as error:
            self._break(error)
            return
        if self._outgoing.pending or self._backlog:  # a key update is to be answered, or was missing
            self._pump()
            if self._outgoing.pending > MOST_ANSWERS and not self.is_closing():
                _log.info("closing a connection: the client asks for key updates, and reads no answers")
                self.abort()
        self._tell_end()

    def _fill_buffer(self) -> bool:
        """Decrypt one buffer of the connection; return whether there may be more. Raises ``ssl.SSLError``."""
        buffer = memoryview(self._above.get_buffer(-1))
        size, filled, read = len(buffer), 0, self._tls.read
        more = True
        try:
            while filled < size and not self._end_read:
                # One call returns one record at most, or 0 at the end.
                count = cast("int", read(size - filled, cast("bytearray", buffer[filled:])))
                self._end_read = not count
                filled += count
        except ssl.SSLWantReadError:  # the rest of a record is missing
            more = False
        except ssl.SSLZeroReturnError:  # in place of 0 if our end was sent, too
            self._end_read = True
        if filled:
            self._above.buffer_updated(filled)
        return more

    def _holds_bytes(self) -> bool:
        """Whether bytes have arrived that the connection has not got."""
        return bool(self._incoming.pending or self._tls.pending())

    def _tell_end(self) -> None:
        """Tell the connection the end of the client's bytes if it has got all of them."""
        got_all = self._end_read or (
            self._below_ended and (self._reads or self._discards or not self._holds_bytes())
        )
        if not got_all or self._end_told or self._closing:
            return
        self._end_told = True
        if not self._above.eof_received():
            self.close()

    def _pump(self) -> None:
        """Encrypt and send as much as the kernel takes; then close, if told so, or resume the connection."""
        if self._lost:
            return
        self._send()
        if self._below.is_closing():
            return
        if self._backlog or (self._below_is_full and not self._closing):
            if not self._told_to_pause:
                self._told_to_pause = True
                self._above.pause_writing()
            return
        if self._closing or self._shut_down:
            self._say_end()
        if self._closing:
            self._close_below()
        elif self._told_to_pause:
            self._told_to_pause = False
            self._above.resume_writing()

    def _send(self) -> None:
        """Encrypt and send as much as the kernel takes."""
        waits = False
        while (
            (self._backlog or self._outgoing.pending)
            and not (waits or self._below_is_full)
            and not self._below.is_closing()
        ):
            try:
                self._encrypt()
            except ssl.SSLWantReadError:  # the rest of a key update has to come first
                waits = True
            except ssl.SSLError as error:
                self._break(error)
                return
            if self._outgoing.pending:
                self._below.write(self._outgoing.read())

    def _encrypt(self) -> None:
        taken = 0
        while self._backlog and taken < ENCRYPT_SIZE:
            piece = self._backlog[0]
            count = self._tls.write(piece[:ENCRYPT_SIZE])
            if count < len(piece):
                self._backlog[0] = piece[count:]
            else:
                self._backlog.popleft()
            taken += count
            self._backlog_size -= count

    def _say_end(self) -> None:
        """Tell the client that no more bytes follow."""
        if self._end_sent:
            return
        self._end_sent = True
        # It fails because the client's own end is missing, which nobody waits for; ours is in the buffer.
        with suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())
        if self._shut_down and not self._closing:
            try:
                self._below.write_eof()
            except OSError:  # the client has disconnected, which asyncio's transport does not catch
                self._below.abort()

    def _close_below(self) -> None:
        """Close the plain transport, which waits for the client to read the rest; bound that."""
        self._below.close()
        if self._below.get_write_buffer_size():
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._below.abort)

    def _break(self, error: ssl.SSLError) -> None:
        """Close: what the client sent cannot be decrypted."""
        _log.info(
            "closing a connection: TLS failed: %s", (error.reason or str(error)).replace("_", " ").lower()
        )
        self._closing = self._discards = True
        if self._outgoing.pending and not self._below.is_closing():
            self._below.write(self._outgoing.read())  # the alert
        self._close_below()
