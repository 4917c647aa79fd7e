"""TLS over a blocking socket, for one thread that reads and one at a time that writes.

A ``ssl.SSLSocket`` must not be read and written by two threads at the same time: OpenSSL forbids it, and
not every version of Python has a lock for it. Here a lock guards OpenSSL, and no thread holds it while it
waits for the network.
"""

import socket
import ssl
import threading
import time
from contextlib import suppress

from vipsrv.client.tls import ClientTls

READ_SIZE = 256 * 1024
"""Bytes of ciphertext that are read at once."""

SEND_SIZE = 256 * 1024
"""Bytes that are encrypted at once."""


class TlsSocket:
    """The part of a socket's interface that a connection needs, over a socket that is connected already.

    The constructor makes the handshake within ``timeout`` seconds. It raises ``ssl.SSLError``,
    ``TimeoutError`` or another ``OSError``; the socket then has to be closed.
    """

    def __init__(self, connected: socket.socket, tls: ClientTls, timeout: float | None) -> None:
        self._socket = connected
        self._choice = tls
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap(self._incoming, self._outgoing)
        self._lock = threading.Lock()  # guards OpenSSL's objects
        self._unsent = memoryview(b"")  # ciphertext
        self._taken = 0  # plain bytes that `_unsent` stands for
        self._sends = False
        self._session_is_kept = False
        self._shake_hands(None if timeout is None else time.monotonic() + timeout)

    @property
    def resumed(self) -> bool:
        """Whether the handshake has resumed a session."""
        return bool(self._tls.session_reused)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Set how long each call waits for the network."""
        self._socket.settimeout(seconds)

    def send(self, data: memoryview) -> int:
        """Send the beginning of ``data``; return how much. Raises ``OSError``.

        After a ``TimeoutError`` the next call must be given the same bytes.
        """
        if not self._unsent:
            with self._lock:
                self._sends = True
                self._taken = 0
                piece = data[:SEND_SIZE]
                while self._taken < len(piece):
                    self._taken += self._tls.write(piece[self._taken :])
                self._unsent = memoryview(self._outgoing.read())
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        self._sends = False
        return self._taken

    def recv(self, size: int) -> bytes:
        """Return received bytes, about ``size`` at most, or nothing at the end. Raises ``OSError``."""
        while True:
            with self._lock:
                data, ended = self._decrypt(size)
            if data or ended:
                return data
            received = self._socket.recv(READ_SIZE)
            if not received:
                return b""  # messages have sizes, so it makes no difference whether TLS was ended, too
            with self._lock:
                self._incoming.write(received)

    def shutdown(self, how: int) -> None:
        """Tell the server that the connection ends, unless bytes are being sent, and shut the socket down.

        Raises ``OSError``.
        """
        with self._lock:
            if not self._sends:
                with suppress(ssl.SSLError, ValueError):  # the end of the server's bytes is missing
                    self._tls.unwrap()
                with suppress(OSError):
                    self._socket.send(self._outgoing.read(), getattr(socket, "MSG_DONTWAIT", 0))
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _shake_hands(self, ends_at: float | None) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(ends_at)
                self._limit_wait(ends_at)
                received = self._socket.recv(READ_SIZE)
                if not received:
                    raise ssl.SSLEOFError("the server has closed") from None
                self._incoming.write(received)
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush(ends_at)  # the alert, so that the server knows why
                raise
            else:
                self._flush(ends_at)
                return

    def _flush(self, ends_at: float | None) -> None:
        if self._outgoing.pending:
            self._limit_wait(ends_at)
            self._socket.sendall(self._outgoing.read())

    def _limit_wait(self, ends_at: float | None) -> None:
        if ends_at is not None:
            left = ends_at - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)

    def _decrypt(self, size: int) -> tuple[bytes, bool]:
        """With the lock held: return the plain bytes that are there, and whether they are the last ones."""
        parts: list[bytes] = []
        while size > 0 and (self._incoming.pending or self._tls.pending()):
            try:
                part = self._tls.read(size)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # in place of no bytes if our end was sent, too
                part = b""
            if not part:
                return b"".join(parts), True
            parts.append(part)
            size -= len(part)
        if parts and not self._session_is_kept:
            self._session_is_kept = True
            self._choice.keep_session(self._tls)
        return parts[0] if len(parts) == 1 else b"".join(parts), False
