"""The connections of a blocking client: made when a call needs one, shared by calls, replaced when lost."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from vipsrv.address import Address
from vipsrv.client.blocking_connection import BlockingConnection
from vipsrv.client.core import PendingRequest
from vipsrv.client.embedded import EmbeddedServer
from vipsrv.client.pool import ConnectionPool
from vipsrv.client.requests import PING, ClientRequest, ProtocolVersion
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout, has_passed, too_long, until_deadline
from vipsrv.client.tls import ClientTls
from vipsrv.errors import ClientTimeout, ConnectionLost, RequestError, VipsrvError


@dataclass(slots=True, eq=False)
class Started:
    """A request that was sent and may not have ended; ``second`` if it is that of a hedged call."""

    connection: BlockingConnection
    pending: PendingRequest
    end: Callable[[], None]
    """Is called when nobody waits for it any more."""
    second: bool = False

    def abandon(self) -> None:
        """Cancel it at the server."""
        self.connection.abandon(self.pending)
        self.end()


class BlockingPool(ConnectionPool[BlockingConnection]):
    """The connections of a blocking client, which several threads may use at the same time."""

    def __init__(
        self,
        server: Address | EmbeddedServer,
        protocol: ProtocolVersion,
        timeout: Timeout,
        max_reply_size: int,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        most: int = 1,
    ) -> None:
        super().__init__(server, protocol, timeout, max_reply_size, token=token, tls=tls, most=most)
        self._lock = threading.Lock()  # guards the fields below, the connections and whether it is closed
        self._attempt: Future[BlockingConnection | None] | None = None
        self._check: threading.Thread | None = None  # whether the server still works
        self._probes: list[BlockingConnection] = []

    def call(
        self,
        request: ClientRequest,
        source: Source | None = None,
        on_sent: OnSent | None = None,
        until: float | None = None,
    ) -> PendingRequest:
        """Send a request and wait until it ends, or until the time is ``until``."""
        while True:
            connection = self._connection(until, self._counted)
            try:
                pending = connection.call(request, source, on_sent, until)
            finally:
                if self._counted:
                    self._count_down(connection)
                if self._protocol == 1:
                    self._close_one(connection)
            if pending is not None:  # otherwise the connection ended while this call waited to send
                return pending

    def start(
        self,
        request: ClientRequest,
        source: Source,
        on_sent: OnSent | None,
        done: threading.Event,
        until: float | None,
    ) -> "Started":
        """Send a request; ``done`` is set when it ends."""
        while True:
            connection = self._connection(until, self._counted)
            pending = None
            try:
                pending = connection.start(request, source, on_sent, done.set, until)
            finally:
                if pending is None:
                    self._count_down(connection)
            if pending is not None:
                return Started(connection, pending, partial(self._count_down, connection))

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        with self._lock:
            return any(connection.usable for connection in self._connections)

    def _count_down(self, connection: BlockingConnection) -> None:
        with self._lock:
            connection.calls -= self._counted

    def connection(self, until: float | None = None) -> BlockingConnection:
        """Return a usable connection; calls that need one at the same time share the attempt to make it."""
        return self._connection(until, calls=0)

    def _connection(self, until: float | None, calls: int) -> BlockingConnection:
        """Return a usable connection, which is used by this many ``calls`` more from now on."""
        if self._protocol == 1:
            return self._connect(until)
        if self._most == 1:
            best, _ = self._best()  # without the lock: nothing is counted
            if best is not None:
                return best
        while True:
            with self._lock:
                self._check_open()
                best, another = self._best()
                if best is not None and not another:
                    best.calls += calls
                    return best
                attempt, is_ours = self._attempt or Future(), self._attempt is None
                self._attempt = attempt
            try:
                made = self._attempt_to_connect(attempt, until) if is_ours else self._shared(attempt, until)
            except VipsrvError:
                if best is None or not best.usable:
                    raise
                made, is_ours = best, True
            if made is not None and (is_ours or self._most == 1):
                with self._lock:
                    made.calls += calls
                return made

    def _shared(
        self, attempt: "Future[BlockingConnection | None]", until: float | None
    ) -> BlockingConnection | None:
        """Wait for the attempt of another call; ``None`` if that call has given it up."""
        try:
            return attempt.result(until_deadline(None, until))
        except TimeoutError:
            raise too_long(self._timeout, "it had no connection yet") from None
        except (VipsrvError, RuntimeError) as error:
            # A copy for each call, because each is raised in another thread.
            raise type(error)(*error.args) from error

    def probe(self) -> None:
        """Ask the server over a connection of its own whether it takes requests. Raises ``VipsrvError``."""
        self._probe(self.server.start() if isinstance(self.server, EmbeddedServer) else self.server)

    def _probe(self, address: Address) -> None:
        connection = BlockingConnection(
            address,
            self._protocol,
            self._probe_timeout,
            self._max_reply_size,
            token=self._token,
            tls=self._tls,
        )
        try:
            with self._lock:
                self._check_open()
                self._probes.append(connection)
            pending = connection.call(PING, None, None)
            if pending is None:
                raise ConnectionLost(f"the connection to {address} was lost: closed at once")
            pending.result()
        finally:
            connection.close()
            with self._lock:
                if connection in self._probes:
                    self._probes.remove(connection)

    def _doubt(self, address: Address) -> None:
        """Find out whether a server that accepts nothing works; if not, end what is in flight there."""
        with self._lock:
            if self._check is not None or self._closed:
                return
            self._check = threading.Thread(
                target=self._give_up_unless_it_works, args=[address], name="vipsrv-client-check", daemon=True
            )
            self._check.start()

    def _give_up_unless_it_works(self, address: Address) -> None:
        failure: VipsrvError | None = None
        began = time.monotonic()
        try:
            self._probe(address)
        except RequestError:
            pass  # it has answered
        except VipsrvError as error:
            failure = error
        except RuntimeError:
            pass  # the client was closed
        with self._lock:
            connections = list(self._connections)
            self._check = None
        if failure is not None:
            for connection in connections:
                if not connection.heard_since(began):
                    connection.give_up(f"does not work any more: {failure}")

    def close(self) -> None:
        """Close the connections and stop an embedded server. May be called again."""
        for connection in self._take_connections():
            connection.close()
        check = self._check
        if check is not None:
            check.join()  # which does not take long without its connection
        self._stop_server()

    def release(self) -> None:
        """Close without waiting for the reader thread, for a client that is garbage-collected."""
        for connection in self._take_connections():
            connection.close(wait=False)
        self._stop_server()

    def forget(self) -> None:
        """In a forked child: leave the connections to the parent; the next call makes its own.

        Takes no lock, since another thread of the parent may have held it at the fork.
        """
        self._lock = threading.Lock()
        self._attempt = self._check = None
        for connection in self._forget_connections():
            connection.forget()
        self._forget_server()

    def _take_connections(self) -> list[BlockingConnection]:
        with self._lock:
            probes, self._probes = self._probes, []
            return [*super()._take_connections(), *probes]

    def _attempt_to_connect(
        self, attempt: "Future[BlockingConnection | None]", until: float | None
    ) -> BlockingConnection:
        connection = None
        try:
            connection = self._connect(until)
        except (VipsrvError, RuntimeError) as error:
            if not has_passed(until):
                attempt.set_exception(error)
            raise
        finally:
            with self._lock:
                self._attempt = None
            if not attempt.done():
                # None after a ctrl-C or the deadline of this call, which concern this thread only.
                attempt.set_result(connection)
        return connection

    def _connect(self, until: float | None) -> BlockingConnection:
        with self._lock:
            self._check_open()
        address = self.server.start() if isinstance(self.server, EmbeddedServer) else self.server

        def keep(connection: BlockingConnection) -> None:
            connection.on_doubt = partial(self._doubt, address)
            with self._lock:
                if not self._closed:
                    self._keep(connection)

        try:
            connection = BlockingConnection(
                address,
                self._protocol,
                self._timeout,
                self._max_reply_size,
                token=self._token,
                tls=self._tls,
                until=until,
                made=keep,
            )
        except ClientTimeout:
            if has_passed(until):
                raise too_long(self._timeout, f"no connection to {address} yet") from None
            raise
        with self._lock:
            if connection in self._connections:
                return connection
        connection.close()
        self._stop_server()  # it may have been started after close
        raise RuntimeError("the client was closed while it connected")

    def _close_one(self, connection: BlockingConnection) -> None:
        connection.close()
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
