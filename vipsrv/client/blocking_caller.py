"""Makes the calls of a blocking client: it does the I/O of the steps that ``calls.py`` decides on."""

import threading
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from vipsrv.address import Address
from vipsrv.client.attempts import Retries
from vipsrv.client.blocking_hedge import HedgedCall
from vipsrv.client.blocking_pool import BlockingPool
from vipsrv.client.calls import (
    Answer,
    ClientServers,
    Connect,
    Outcome,
    Pause,
    Probe,
    Resolve,
    SendRequest,
    Server,
    Step,
    answer_at_once,
    call_steps,
    ping_steps,
)
from vipsrv.client.core import PendingRequest
from vipsrv.client.hedge import Hedge
from vipsrv.client.pool import forget_at_fork
from vipsrv.client.requests import ClientRequest
from vipsrv.client.resume import ResumableUpload
from vipsrv.client.retry import Retry
from vipsrv.client.server_list import hedging_of
from vipsrv.client.server_names import Resolver, resolve
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout, until_deadline
from vipsrv.errors import ConnectionLost, VipsrvError

T = TypeVar("T")


class BlockingCaller:
    """The calls of one client, which several threads may make at the same time.

    ``make_pool`` makes the pool of connections to a server, when a call is first sent there. That to the only
    one is made at once.
    """

    def __init__(
        self,
        servers: ClientServers,
        make_pool: Callable[[Server], BlockingPool],
        *,
        retry: Retry,
        timeout: Timeout,
        resolver: Resolver = resolve,
        hedge: Hedge | None = None,
    ) -> None:
        self._resolver = resolver
        self._background: set[threading.Thread] = set()
        self._servers = servers
        self._make_pool = make_pool
        self._timeout = timeout
        self._retries = Retries(retry)
        self._hedging = hedging_of(hedge, servers, self._retries.budget)
        self._lock = threading.Lock()  # guards the pools
        self._pools: dict[Server, BlockingPool] = {}
        self._closed = threading.Event()
        self._only = None if servers.only is None else self._pool(servers.only)
        forget_at_fork(self)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the servers that are known now."""
        return self._servers.addresses

    @property
    def in_use(self) -> bool:
        """Whether a connection or an embedded server would be left behind without ``close``."""
        return any(pool.in_use for pool in list(self._pools.values()))

    def call(
        self,
        request: ClientRequest,
        source: Source | None = None,
        on_sent: OnSent | None = None,
        *,
        upload: ResumableUpload | None = None,
    ) -> Answer:
        """Make a call. Raises the error of its last attempt, and ``OSError`` for its image."""
        until = self._timeout.deadline()
        first: PendingRequest | VipsrvError | None = None
        pool = self._only
        if pool is not None and (upload is None or upload.begins_plainly(pool.server)):
            try:
                first = pool.call(request, source, on_sent, until)
            except VipsrvError as error:
                first = error
            if (answer := answer_at_once(first, self._retries)) is not None:
                return answer
        servers, retries = self._servers.for_call(), self._retries
        steps = call_steps(request, servers, retries, until=until, upload=upload, first=first)
        return self._drive(steps, source, on_sent)

    def ping(self) -> float:
        """Return the seconds of a round trip, without the time to connect."""
        return self._drive(
            ping_steps(self._servers.for_call(), self._retries, until=self._timeout.deadline())
        )

    def close(self) -> None:
        """End all calls, close the connections and stop an embedded server. May be called again."""
        for pool in self._end_calls():
            pool.close()
        for thread in list(self._background):
            thread.join()  # which does not take long without its connection

    def release(self) -> None:
        """Close without waiting for the reader threads, for a client that is garbage-collected."""
        for pool in self._end_calls():
            pool.release()

    def forget(self) -> None:
        """In a forked child: take new locks, since a thread of the parent may have held the old ones."""
        self._lock = threading.Lock()
        closed = self._closed.is_set()
        self._closed = threading.Event()
        if closed:
            self._closed.set()
        self._retries.budget.forget()
        self._servers.forget()
        self._background = set()
        if self._hedging is not None:
            self._hedging.forget()

    def _end_calls(self) -> list[BlockingPool]:
        self._retries.closed = True
        self._closed.set()
        with self._lock:
            return list(self._pools.values())

    def _drive(
        self,
        steps: Generator[Step, Outcome, T],
        source: Source | None = None,
        on_sent: OnSent | None = None,
    ) -> T:
        try:
            step = next(steps)
            while True:
                step = steps.send(self._do(step, source, on_sent))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _do(self, step: Step, source: Source | None, on_sent: OnSent | None) -> Outcome:
        """Do one step, and return its outcome."""
        if isinstance(step, (SendRequest, Connect)):
            return self._send(step, source, on_sent)
        if isinstance(step, Pause):
            self._closed.wait(step.seconds)
            return None
        if isinstance(step, Probe):
            self._probe(step)
        else:
            self._resolve(step)
        return None

    def _send(self, step: SendRequest | Connect, source: Source | None, on_sent: OnSent | None) -> Outcome:
        pool = self._pools.get(step.server) or self._pool(step.server)
        try:
            if isinstance(step, SendRequest):
                if source is None or step.offset is None:
                    return pool.call(step.request, until=step.until)
                source.move_to(step.offset)
                if self._hedging is not None and self._hedging.fits(step.request, source):
                    hedged = HedgedCall(self._hedging, self._pool, self._timeout, step)
                    return hedged.make(pool, source, on_sent)
                return pool.call(step.request, source, on_sent, step.until)
            pool.connection(step.until)
        except VipsrvError as error:
            return error
        return None

    def _pool(self, server: Server) -> BlockingPool:
        """Return the pool of a server; make it if there is none yet."""
        with self._lock:
            pool = self._pools.get(server)
            if pool is None:
                if self._retries.closed:
                    raise RuntimeError("the client is closed")
                pool = self._pools[server] = self._make_pool(server)
            return pool

    def _probe(self, step: Probe) -> None:
        pool = self._pools.get(step.server) or self._pool(step.server)

        def probe() -> None:
            failure: VipsrvError | None = ConnectionLost("the client was closed")
            try:
                pool.probe()
                failure = None
            except VipsrvError as error:
                failure = error
            except RuntimeError:
                pass  # the client was closed
            finally:
                step.done(failure)
                self._background.discard(threading.current_thread())

        thread = threading.Thread(target=probe, name="vipsrv-client-probe", daemon=True)
        self._background.add(thread)
        thread.start()

    def _resolve(self, step: Resolve) -> None:
        """Resolve the names in a thread, because the system may take long to say that it cannot."""

        def look_up() -> None:
            answers: dict[Address, Sequence[str] | OSError] = {}
            for name in step.names:
                try:
                    answers[name] = self._resolver(name.host, name.port)
                except OSError as error:
                    answers[name] = error
            step.done(answers)
            self._retire_others()

        # Not among those that ``close`` waits for: nothing can end it.
        thread = threading.Thread(target=look_up, name="vipsrv-client-resolve", daemon=True)
        thread.start()
        if step.wait:
            thread.join(until_deadline(None, step.until))

    def _retire_others(self) -> None:
        """Let go of the servers that no name stands for any more."""
        known = self._servers.addresses
        with self._lock:
            gone = [pool for server, pool in self._pools.items() if str(server) not in known]
        for pool in gone:
            pool.retire()
