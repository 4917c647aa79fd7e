"""One connection of the blocking client: a socket, a thread that reads from it, and turns to write to it.

::

    calling threads ── turn to send ──► socket ──► server
          ▲                               │
          └──── Event ◄── core ◄── reader thread
"""

import errno
import socket
import threading

from vipsrv.address import Address
from vipsrv.client.address import connect_error, reason
from vipsrv.client.core import ClientCore, Exchange
from vipsrv.client.requests import Protocol, Request
from vipsrv.client.sources import PIECE_SIZE, OnSent, Source, shortened
from vipsrv.client.timeouts import Timeout
from vipsrv.errors import ClientTimeout, ConnectFailed

READ_SIZE = 256 * 1024
FIRST_PIECE_SIZE = 64 * 1024

_OF_THE_NETWORK = {
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
}
"""What ``sendfile`` can fail with besides ``ConnectionError`` that is no error of the image's file."""


class Connection:
    """A connection that stands. Raises ``ConnectFailed`` or ``ClientTimeout`` if it cannot be made."""

    def __init__(self, address: Address, protocol: Protocol, timeout: Timeout) -> None:
        self._timeout = timeout
        self._peer = str(address)
        self._core = ClientCore(protocol, self._peer)
        self._state = threading.Condition()  # for all that follows, and for the core
        self._sending = False
        self._cancels: list[bytes] = []
        self._reading = True
        self._socket = _connect(address, timeout)
        self._reader = threading.Thread(target=self._read, name="vipsrv-client-reader", daemon=True)
        self._reader.start()

    @property
    def usable(self) -> bool:
        """Whether a further request may go over it."""
        return self._core.usable

    @property
    def ended(self) -> bool:
        """Whether it is closed, with nobody using it any more."""
        with self._state:
            return not self._reading and not self._sending

    def call(self, request: Request, source: Source | None, on_sent: OnSent | None) -> Exchange | None:
        """Send a request and wait for its end; ``None`` if the connection ended before its turn came.

        Raises ``ClientTimeout``, and ``OSError`` where the image cannot be read.
        """
        done = threading.Event()
        exchange = self._begin(request, source.size if source else 0, done)
        if exchange is None or exchange.done:
            return exchange
        try:
            complete = False
            try:
                complete = self._send_request(exchange, source, on_sent)
            finally:
                self._end_turn(complete=complete)
            answered = done.wait(self._timeout.reply)
        except BaseException:
            self._abandon(exchange)
            raise
        if not answered:
            self._abandon(exchange)
            raise ClientTimeout(f"{self._peer} has not answered within {self._timeout.reply} s")
        return exchange

    def close(self) -> None:
        """Drop the connection: what is in flight ends with ``ConnectionLost``."""
        with self._state:
            self._core.close()
            self._shut_down()
        if threading.current_thread() is not self._reader:
            self._reader.join()

    def _begin(self, request: Request, body_size: int, done: threading.Event) -> Exchange | None:
        with self._state:
            while self._sending and self._core.usable:
                self._state.wait()
            if self._core.superseded:
                return None
            exchange = self._core.start(request, body_size, done.set)
            self._sending = self._sending or not exchange.done
            return exchange

    def _end_turn(self, *, complete: bool) -> None:
        with self._state:
            self._core.end_sending(complete=complete)
        self._send_cancels()

    def _send_cancels(self) -> None:
        """Send the CANCELs that gathered meanwhile, then let the next one have its turn."""
        while True:
            with self._state:
                if not self._cancels or not self._core.usable:
                    self._sending = False
                    self._state.notify_all()
                    self._settle()
                    return
                message = self._cancels.pop(0)
            try:
                self._send(memoryview(message))
            except (OSError, ClientTimeout):
                # Nobody waits for a CANCEL: whoever uses the connection next learns of its state.
                with self._state:
                    self._core.retire()

    def _abandon(self, exchange: Exchange) -> None:
        with self._state:
            cancel = self._core.abandon(exchange)
            if cancel is None:
                self._settle()
                return
            self._cancels.append(cancel)
            if self._sending:
                return  # whoever is sending sends it afterwards
            self._sending = True
        self._send_cancels()

    def _send_request(self, exchange: Exchange, source: Source | None, on_sent: OnSent | None) -> bool:
        """Whether the whole request was sent.

        A broken connection is no error here: the reader thread learns what it was, be it a refusal.
        """
        try:
            if source is None:
                self._send(memoryview(exchange.head))
                return True
            # The head travels with the beginning of the image, so that a small one is one segment.
            first = source.read(FIRST_PIECE_SIZE)
            self._send(memoryview(b"".join((exchange.head, first))))
            exchange.unsent -= len(first)
            while True:
                if on_sent is not None:
                    on_sent(source.size - exchange.unsent)
                if not exchange.unsent or self._core.stop_sending(exchange):
                    return not exchange.unsent
                size = min(exchange.unsent, PIECE_SIZE)
                exchange.unsent -= self._send_piece(source, source.size - exchange.unsent, size)
        except ConnectionError:
            return False

    def _send_piece(self, source: Source, offset: int, size: int) -> int:
        """Send ``size`` bytes of the image, or the fewer that its file's ``read`` gives."""
        file = source.file
        if file is None:
            piece = source.read(size)
            self._send(piece)
            return len(piece)
        start = source.start + offset
        file.seek(start)
        sent = 0
        while sent < size:
            progress = self._core.received
            try:
                if not self._socket.sendfile(file, start + sent, size - sent):
                    raise shortened(offset + sent, source.size)
            except OSError as error:
                if error.errno in _OF_THE_NETWORK:
                    raise BrokenPipeError(error.strerror) from error
                if not isinstance(error, TimeoutError):
                    raise
                if file.tell() == start + sent and self._core.received == progress:
                    raise self._stalled() from None
            sent = file.tell() - start
        return sent

    def _send(self, data: memoryview) -> None:
        while data:
            progress = self._core.received
            try:
                data = data[self._socket.send(data) :]
            except OSError as error:
                if not isinstance(error, TimeoutError) or error.errno is not None:
                    # Whatever it was: to be told apart from an error of the image's file.
                    raise BrokenPipeError(error.strerror) from error
                # A server with enough in flight stops reading until it has answered some: that is no stall.
                if self._core.received == progress:
                    raise self._stalled() from None

    def _stalled(self) -> ClientTimeout:
        return ClientTimeout(f"{self._peer} has not taken any of the request for {self._timeout.send} s")

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(READ_SIZE)
            except TimeoutError:
                continue  # the socket's timeout is for sending; between replies there is nothing to read
            except OSError as error:
                with self._state:
                    self._core.lost(reason(error))
                break
            with self._state:
                if data:
                    self._core.receive_data(data)
                    self._settle()
                else:
                    self._core.receive_eof()
                if self._core.closed:
                    break
        with self._state:
            self._reading = False
            self._shut_down()
            self._state.notify_all()

    def _settle(self) -> None:
        """With the state held: drop the connection if nobody has any use for it."""
        if self._core.over:
            self._shut_down()

    def _shut_down(self) -> None:
        """With the state held: wake whoever reads or sends; the last of them closes the socket.

        A descriptor closed under a thread that still uses it might by then belong to something else.
        """
        self._core.retire()
        if not self._reading and not self._sending:
            self._socket.close()
            return
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the server was faster


def _connect(address: Address, timeout: Timeout) -> socket.socket:
    try:
        if not address.path:
            connected = socket.create_connection((address.host, address.port), timeout.connect)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        elif not hasattr(socket, "AF_UNIX"):
            raise ConnectFailed(f"no connection to {address}: this system has no unix sockets")
        else:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connected.settimeout(timeout.connect)
                connected.connect(address.path)
            except BaseException:
                connected.close()
                raise
    except (OSError, UnicodeError) as error:
        raise connect_error(error, address, timeout) from error
    connected.settimeout(timeout.send)
    return connected
