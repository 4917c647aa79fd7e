"""One connection of the blocking client: a socket, and a thread that reads from it.

::

    calling threads ── one at a time ──► socket ──► server
          ▲                                │
          └───── Event ◄── core ◄── reader thread
"""

import errno
import socket
import threading
import time
from collections.abc import Callable

from vipsrv.address import Address
from vipsrv.client.core import ClientCore, PendingRequest
from vipsrv.client.requests import ClientRequest, ProtocolVersion
from vipsrv.client.server_address import connect_error, handshake_error, reason
from vipsrv.client.silence import ASK_AFTER, Action, Silence, has_arrived, queued_bytes
from vipsrv.client.sources import PIECE_SIZE, OnSent, Source, shortened
from vipsrv.client.timeouts import Timeout, has_passed, too_long, until_deadline
from vipsrv.client.tls import ClientTls, tls_fault
from vipsrv.client.tls_socket import TlsSocket
from vipsrv.errors import ClientTimeout, ConnectFailed

READ_SIZE = 256 * 1024
FIRST_PIECE_SIZE = 64 * 1024

_NETWORK_ERRORS = {
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
}
"""Errors of ``sendfile``, besides ``ConnectionError``, that concern the network and not the image's file."""


class BlockingConnection:
    """An open connection. Raises ``ConnectFailed`` or ``ClientTimeout`` if it cannot be made.

    ``made`` gets it before anyone else: a ctrl-C may end the constructor or come just after it.
    """

    def __init__(
        self,
        address: Address,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        until: float | None = None,
        made: Callable[["BlockingConnection"], None] | None = None,
    ) -> None:
        self._timeout = timeout
        self._peer = str(address)
        self._core = ClientCore(protocol, self._peer, max_reply_size=max_reply_size, token=token)
        self._lock = threading.RLock()  # guards the fields below and the core
        self._state = threading.Condition(self._lock)  # tells the threads that wait to send
        self._waiting = 0  # how many those are
        self._sending = False
        self._sender = 0  # the thread that has the turn to send, or had it last
        self._cancels: list[bytes] = []
        self._reading = True
        self._host = address.host
        self._until: float | None = None  # the deadline of the call that is sending
        self._silence = None if timeout.patience is None or protocol == 1 else Silence(timeout.patience)
        self._handed = 0  # bytes that the socket has taken
        self._sliced = False  # whether the socket waits for no longer than `_slice`, as large images are sent
        self.calls = 0
        """How many calls use it, for its pool."""
        self.on_doubt: Callable[[], None] | None = None
        """Is called when the server should be asked whether it works, over another connection."""
        self._socket = _connect(address, timeout, tls, until_deadline(timeout.connect, until))
        self._reader = threading.Thread(target=self._read, name="vipsrv-client-reader", daemon=True)
        try:
            self._reader.start()
            if made is not None:
                made(self)
        except BaseException:
            self.close(wait=False)
            raise

    @property
    def usable(self) -> bool:
        """Whether another request may be sent over it."""
        return self._core.usable

    @property
    def ended(self) -> bool:
        """Whether it is closed and no thread uses it any more."""
        with self._lock:
            return not self._reading and not self._sending

    def call(
        self,
        request: ClientRequest,
        source: Source | None,
        on_sent: OnSent | None,
        until: float | None = None,
    ) -> PendingRequest | None:
        """Send a request and wait until it ends; ``None`` if the connection ended before it could be sent.

        Raises ``ClientTimeout``, also at the deadline ``until``, and ``OSError`` if the image cannot be read.
        """
        ending = threading.Lock()  # until the request has ended; an Event takes twice as long as all of this
        ending.acquire()
        pending = self.start(request, source, on_sent, ending.release, until)
        if pending is None or pending.done:
            return pending
        try:
            answered = self._wait(ending, until_deadline(self._timeout.reply, until))
        except BaseException:
            self.abandon(pending)
            raise
        if not answered:
            self.abandon(pending)
            if has_passed(until):
                raise too_long(self._timeout, f"{self._peer} has not answered")
            raise ClientTimeout(f"{self._peer} has not answered within {self._timeout.reply} s")
        return pending

    def start(
        self,
        request: ClientRequest,
        source: Source | None,
        on_sent: OnSent | None,
        on_done: Callable[[], None],
        until: float | None = None,
    ) -> PendingRequest | None:
        """Send a request; ``on_done`` is called once, when it ends. The rest is as for ``call``."""
        try:
            pending = self._begin(request, source.unread if source else 0, on_done, until)
            if pending is None or pending.done:
                return pending
        except BaseException:
            with self._lock:
                self._let_others_send()
            raise
        try:
            complete = False
            try:
                if until is not None:
                    self._until = until
                complete = self._send_request(pending, source, on_sent)
            finally:
                if until is not None:
                    self._until = None
                    self._socket.settimeout(self._timeout.send)
                    self._sliced = False
                self._end_turn(complete=complete)
        except BaseException:
            self.abandon(pending)
            raise
        return pending

    def retire(self) -> None:
        """Send nothing more over it, and close it when all that is in flight has ended."""
        with self._lock:
            self._core.retire()
            self._settle()

    def heard_since(self, when: float) -> bool:
        """Whether the server has shown a sign of life since a time by ``time.monotonic``."""
        heard = self._silence is not None and self._silence.heard >= when
        return heard or has_arrived(self._socket.fileno())

    def give_up(self, reason: str) -> None:
        """End the requests in flight, because the server does not work any more."""
        with self._lock:
            self._core.give_up(reason)
            self._shut_down()

    def close(self, *, wait: bool = True) -> None:
        """Close the connection: requests in flight end with ``ConnectionLost``.

        By default, ``wait`` until the reader thread has ended.
        """
        with self._lock:
            self._core.close()
            self._shut_down()
        if wait and threading.current_thread() is not self._reader:
            self._reader.join()

    def forget(self) -> None:
        """In a forked child: close this process's copy of the socket and leave the parent's connection open.

        Takes no lock, since another thread of the parent may have held it at the fork.
        """
        self._socket.close()

    def _wait(self, ending: threading.Lock, seconds: float | None) -> bool:
        """Wait until a request that was sent has ended, and releases the lock; return whether it has."""
        if self._silence is None:
            return ending.acquire(timeout=-1 if seconds is None else seconds)
        since = time.monotonic()
        pause = ASK_AFTER if seconds is None else min(ASK_AFTER, seconds)
        while not ending.acquire(timeout=pause):
            pause = self.look(since)
            if seconds is not None:
                left = since + seconds - time.monotonic()
                if left <= 0:
                    return ending.acquire(blocking=False)
                pause = min(pause, left)
        return True

    def look(self, since: float) -> float:
        """Ask a server that is silent, or give it up; return after how many seconds to look again."""
        with self._lock:
            if self._silence is None or self._core.closed:
                return ASK_AFTER
            descriptor = self._socket.fileno()
            queued = queued_bytes(descriptor)
            action, wait = self._silence.look(
                since,
                accepted=self._handed - (queued or 0),
                queued=queued,
                can_ask=self._core.may_ask and not self._sending,
                arrived=has_arrived(descriptor),
            )
            if action is Action.ASK:
                self._cancels.append(self._core.ask())
                self._take_turn()
        if action is Action.ASK:
            self._send_cancels()
        elif action is Action.DOUBT and self.on_doubt is not None:
            self.on_doubt()
        elif action is Action.GIVE_UP:
            self.give_up(f"has been silent and has not answered a PING within {self._timeout.patience} s")
        return wait

    def _begin(
        self, request: ClientRequest, body_size: int, on_done: Callable[[], None], until: float | None
    ) -> PendingRequest | None:
        with self._lock:
            try:
                while self._sending and self._core.usable:
                    self._wait_to_send(until)
                if self._core.superseded:
                    return None
                pending = self._core.start(request, body_size, on_done)
                if not pending.done:
                    self._take_turn()
            finally:
                if not self._sending:
                    self._wake_senders()  # as this thread, which may have been woken, does not send
            return pending

    def _take_turn(self) -> None:
        """With the lock held: have this thread send."""
        self._sending, self._sender = True, threading.get_ident()

    def _let_others_send(self) -> None:
        """With the lock held: give the turn back that this thread has because a ctrl-C came in between.

        Nobody knows what was sent, so nothing can follow it.
        """
        if self._sending and self._sender == threading.get_ident():
            self._core.retire()
            self._sending = False
            self._wake_senders()
            self._settle()

    def _wait_to_send(self, until: float | None) -> None:
        """With the lock held: wait until another thread may send. Raises ``ClientTimeout``."""
        self._waiting += 1
        try:
            woken = self._state.wait(until_deadline(None, until))
        finally:
            self._waiting -= 1
        if not woken and has_passed(until):
            raise too_long(self._timeout, f"others are sending to {self._peer}")

    def _wake_senders(self) -> None:
        """With the lock held: wake a thread that waits to send, or all if none may."""
        if self._waiting:
            self._state.notify(1 if self._core.usable else self._waiting)

    def _end_turn(self, *, complete: bool) -> None:
        with self._lock:
            self._core.end_sending(complete=complete)
        self._send_cancels()

    def _send_cancels(self) -> None:
        """Send all pending CANCELs, then let the next thread send."""
        while True:
            with self._lock:
                if not self._cancels or not self._core.usable:
                    self._sending = False
                    self._wake_senders()
                    self._settle()
                    return
                message = self._cancels.pop(0)
            try:
                self._send(memoryview(message))
            except (OSError, ClientTimeout):
                # No caller waits for a CANCEL, so nothing is raised: the next call gets another connection.
                with self._lock:
                    self._core.retire()

    def abandon(self, pending: PendingRequest) -> None:
        """Cancel the request at the server: nobody waits for it any more."""
        with self._lock:
            self._let_others_send()
            cancel = self._core.abandon(pending)
            if cancel is None:
                self._settle()
                return
            self._cancels.append(cancel)
            if self._sending:
                return  # the sending thread sends it afterwards
            self._take_turn()
        self._send_cancels()

    def _send_request(self, pending: PendingRequest, source: Source | None, on_sent: OnSent | None) -> bool:
        """Send a request; return whether all of it was sent.

        A broken connection is not an error here: the reader thread finds out why, a refusal for example.
        """
        try:
            if source is None:
                self._send(memoryview(pending.head))
                return True
            # The head is sent together with the beginning of the image: one segment for a small image.
            first = source.read(FIRST_PIECE_SIZE)
            self._send(memoryview(b"".join((pending.head, first))))
            pending.unsent -= len(first)
            if pending.unsent and not self._sliced and self._silence is not None:
                self._socket.settimeout(self._slice)
                self._sliced = True
            while True:
                if on_sent is not None:
                    on_sent(source.size - pending.unsent)
                if not pending.unsent or self._core.stop_sending(pending):
                    return not pending.unsent
                size = min(pending.unsent, PIECE_SIZE)
                pending.unsent -= self._send_piece(source, source.size - pending.unsent, size)
        except ConnectionError:
            return False

    def _send_piece(self, source: Source, offset: int, size: int) -> int:
        """Send ``size`` bytes of the image, or fewer if its file reads fewer; return the number sent."""
        file = source.file
        # ``sendfile`` does not return before it has sent all, however slowly, or nothing for a time.
        if file is None or self._until is not None or isinstance(self._socket, TlsSocket):
            piece = source.read(size)
            self._send(piece)
            return len(piece)
        start = source.start + offset
        file.seek(start)
        sent, since = 0, time.monotonic()
        while sent < size:
            before, progress = sent, self._core.received
            try:
                if not self._socket.sendfile(file, start + sent, size - sent):
                    raise shortened(offset + sent, source.size)
            except OSError as error:
                if error.errno in _NETWORK_ERRORS:
                    raise BrokenPipeError(error.strerror) from error
                if not isinstance(error, TimeoutError):
                    raise
                if file.tell() == start + sent and self._core.received == progress:
                    self._stalled(since)
                else:
                    since = time.monotonic()
            sent = file.tell() - start
            self._handed += sent - before
        return sent

    def _send(self, data: memoryview) -> None:
        since = time.monotonic()
        while data:
            progress = self._core.received
            if self._until is not None:
                self._limit_wait(self._until)
            try:
                sent = self._socket.send(data)
            except OSError as error:
                if not isinstance(error, TimeoutError) or error.errno is not None:
                    # One class for all errors of the socket, distinct from those of the image's file.
                    raise BrokenPipeError(error.strerror) from error
                # A server with many requests in flight stops reading until it has replied to some. While
                # replies arrive, the connection has not stalled.
                if self._core.received != progress:
                    since = time.monotonic()
                elif not has_passed(self._until):
                    self._stalled(since)
            else:
                self._handed += sent
                data = data[sent:]
                since = time.monotonic() if data else since

    def _limit_wait(self, until: float) -> None:
        """Let the next sending end at a call's deadline. Raises ``ClientTimeout`` if it has passed."""
        if has_passed(until):
            raise too_long(self._timeout, f"{self._peer} had not received all of the request")
        self._socket.settimeout(until_deadline(self._slice, until))

    def _stalled(self, since: float) -> None:
        """Have the server asked whether it works. Raises ``ClientTimeout`` if nothing was sent too long."""
        send = self._timeout.send
        if send is not None and time.monotonic() >= since + send:
            raise ClientTimeout(f"{self._peer} has not accepted any of the request for {send} s")
        self.look(since)

    @property
    def _slice(self) -> float | None:
        """How long one piece of waiting to send takes, so that the server can be asked in between."""
        send = self._timeout.send
        return send if self._silence is None else ASK_AFTER if send is None else min(ASK_AFTER, send)

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(READ_SIZE)
            except TimeoutError:
                # The socket's timeout is meant for sending; reading waits without limit.
                self._stop_slicing()
                continue
            except OSError as error:
                fault = tls_fault(error, self._host)
                with self._lock:
                    if fault is None:
                        self._core.lost(reason(error))
                    else:
                        self._core.lost_tls(fault)
                break
            if data and self._silence is not None:
                self._silence.heard = time.monotonic()  # without the lock, for which this may have to wait
            with self._lock:
                if data:
                    self._core.receive_data(data)
                    self._settle()
                else:
                    self._core.receive_eof()
                if self._core.closed:
                    break
        with self._lock:
            self._reading = False
            self._shut_down()
            self._state.notify_all()

    def _stop_slicing(self) -> None:
        """Let the socket of an idle connection wait as long as it may: it need not wake for nothing."""
        with self._lock:
            if self._sliced and not self._sending:
                self._socket.settimeout(self._timeout.send)
                self._sliced = False

    def _settle(self) -> None:
        """With the lock held: close the connection if it is not needed any more."""
        if self._core.over:
            self._shut_down()

    def _shut_down(self) -> None:
        """With the lock held: wake the threads that read and send; the last of them closes the socket.

        A descriptor must not be closed while a thread uses it: its number may be reused for another file.
        """
        self._core.retire()
        if not self._reading and not self._sending:
            self._socket.close()
            return
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the server has closed it already


def _connect(
    address: Address, timeout: Timeout, tls: ClientTls | None, seconds: float | None
) -> socket.socket | TlsSocket:
    """Connect within ``seconds``."""
    try:
        if not address.path:
            connected = socket.create_connection((address.host, address.port), seconds)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        elif not hasattr(socket, "AF_UNIX"):
            raise ConnectFailed(f"no connection to {address}: this system has no unix sockets")
        else:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connected.settimeout(seconds)
                connected.connect(address.path)
            except BaseException:
                connected.close()
                raise
    except (OSError, UnicodeError) as error:
        raise connect_error(error, address, timeout) from error
    secured: socket.socket | TlsSocket = connected
    if tls is not None:
        try:
            secured = TlsSocket(connected, tls, seconds)
        except BaseException as error:
            connected.close()
            if isinstance(error, OSError):
                raise handshake_error(error, address, timeout) from error
            raise
    secured.settimeout(timeout.send)
    return secured
