"""Makes the calls of an asyncio client: it does the I/O of the steps that ``calls.py`` decides on."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from vipsrv.address import Address
from vipsrv.client.asyncio_pool import AsyncPool, running_loop
from vipsrv.client.attempts import Retries
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
from vipsrv.client.hedge import Hedge, Hedging
from vipsrv.client.pool import forget_at_fork
from vipsrv.client.requests import ClientRequest
from vipsrv.client.resume import ResumableUpload
from vipsrv.client.retry import Retry
from vipsrv.client.server_list import hedging_of
from vipsrv.client.server_names import Resolver, resolve
from vipsrv.client.servers import Place
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout, too_long, until_deadline
from vipsrv.errors import ConnectionLost, VipsrvError

T = TypeVar("T")


class AsyncCaller:
    """The calls of one client, all of them in one event loop at a time.

    ``make_pool`` makes the pool of connections to a server, when a call is first sent there. That to the only
    one is made at once.
    """

    def __init__(
        self,
        servers: ClientServers,
        make_pool: Callable[[Server], AsyncPool],
        *,
        retry: Retry,
        timeout: Timeout,
        resolver: Resolver = resolve,
        hedge: Hedge | None = None,
    ) -> None:
        self._resolver = resolver
        self._background: set[asyncio.Task[None]] = set()
        self._servers = servers
        self._make_pool = make_pool
        self._timeout = timeout
        self._retries = Retries(retry)
        self._hedging = hedging_of(hedge, servers, self._retries.budget)
        self._pools: dict[Server, AsyncPool] = {}
        self._pauses: set[asyncio.Future[None]] = set()
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

    async def call(
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
        if pool is not None and until is None and (upload is None or upload.begins_plainly(pool.server)):
            try:
                first = await pool.call(request, source, on_sent)
            except VipsrvError as error:
                first = error
            if (answer := answer_at_once(first, self._retries)) is not None:
                return answer
        servers, retries = self._servers.for_call(), self._retries
        steps = call_steps(request, servers, retries, until=until, upload=upload, first=first)
        return await self._drive(steps, source, on_sent)

    async def ping(self) -> float:
        """Return the seconds of a round trip, without the time to connect."""
        return await self._drive(
            ping_steps(self._servers.for_call(), self._retries, until=self._timeout.deadline())
        )

    async def close(self) -> None:
        """End all calls, close the connections and stop an embedded server. May be called again."""
        running_loop()
        pools = self._end_calls()
        tasks = [task for task in self._background if task.get_loop() is asyncio.get_running_loop()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for pool in pools:
            await pool.close()

    def release(self) -> None:
        """Close without waiting for the connections, for a client that is garbage-collected."""
        for pool in self._end_calls():
            pool.release()

    def forget(self) -> None:
        """In a forked child: leave the pauses to the parent."""
        self._pauses = set()
        self._background = set()
        if self._hedging is not None:
            self._hedging.forget()
        self._retries.budget.forget()
        self._servers.forget()

    def _end_calls(self) -> list[AsyncPool]:
        self._retries.closed = True
        for pause in self._pauses:
            _end(pause)
        return list(self._pools.values())

    async def _drive(
        self,
        steps: Generator[Step, Outcome, T],
        source: Source | None = None,
        on_sent: OnSent | None = None,
    ) -> T:
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._do(step, source, on_sent))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _do(self, step: Step, source: Source | None, on_sent: OnSent | None) -> Outcome:
        """Do one step, and return its outcome."""
        if isinstance(step, (SendRequest, Connect)):
            if self._hedging is not None and isinstance(step, SendRequest) and source is not None:
                return await self._send_hedged(self._hedging, step, source, on_sent)
            return await self._send(step, source, on_sent)
        if isinstance(step, Pause):
            await self._pause(step.seconds)
            return None
        if isinstance(step, Probe):
            self._start(self._probe(step))
        else:
            await self._resolve(step)
        return None

    async def _send(
        self, step: SendRequest | Connect, source: Source | None, on_sent: OnSent | None
    ) -> Outcome:
        pool = self._pools.get(step.server) or self._pool(step.server)
        try:
            if step.until is None:
                return await _send_over(pool, step, source, on_sent)
            return await self._send_in_time(pool, step, step.until, source, on_sent)
        except VipsrvError as error:
            return error

    async def _send_in_time(
        self,
        pool: AsyncPool,
        step: SendRequest | Connect,
        until: float,
        source: Source | None,
        on_sent: OnSent | None,
    ) -> Outcome:
        limit = asyncio.timeout(until - time.monotonic())
        try:
            async with limit:
                return await _send_over(pool, step, source, on_sent)
        except TimeoutError:
            if not limit.expired():
                raise  # of the image's file
            return too_long(self._timeout, "the server has not answered")

    async def _send_hedged(
        self, hedging: Hedging, step: SendRequest, source: Source, on_sent: OnSent | None
    ) -> Outcome:
        """Send a request, and to another server, too, if the first one takes longer than usual."""
        if not hedging.fits(step.request, source):
            return await self._send(step, source, on_sent)
        started, delay, again = time.monotonic(), hedging.delay(), source.copy()
        attempts = [asyncio.ensure_future(self._send(step, source, on_sent))]
        place: Place[Address] | None = None
        try:
            done, _ = await asyncio.wait(attempts, timeout=delay)
            if not done:
                place = hedging.second(step.server)
            if place is not None:
                other = step._replace(server=place.server.endpoint)
                attempts.append(asyncio.ensure_future(self._send(other, again, None)))
            ended = await _first_success(attempts)
            outcome = ended.result()
            if place is not None and ended is attempts[-1]:
                error = outcome.error if isinstance(outcome, PendingRequest) else outcome
                hedging.end(place, error)
                place = None
                if isinstance(outcome, PendingRequest):
                    outcome.hedged = True
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
            if place is not None:
                hedging.end(place, None, cancelled=True)
        if isinstance(outcome, PendingRequest) and outcome.error is None:
            hedging.note(time.monotonic() - started)
        return outcome

    def _pool(self, server: Server) -> AsyncPool:
        """Return the pool of a server; make it if there is none yet."""
        if self._retries.closed:
            raise RuntimeError("the client is closed")
        pool = self._pools[server] = self._make_pool(server)
        return pool

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something in the background, until the client is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _probe(self, step: Probe) -> None:
        failure: VipsrvError | None = ConnectionLost("the client was closed")
        try:
            await (self._pools.get(step.server) or self._pool(step.server)).probe()
            failure = None
        except VipsrvError as error:
            failure = error
        finally:
            step.done(failure)

    async def _resolve(self, step: Resolve) -> None:
        looking_up = self._start(self._look_up(step))
        if step.wait:
            await asyncio.wait([looking_up], timeout=until_deadline(None, step.until))

    async def _look_up(self, step: Resolve) -> None:
        """Resolve the names at the same time, each in a thread."""
        answers = await asyncio.gather(
            *(asyncio.to_thread(self._resolver, name.host, name.port) for name in step.names),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, OSError):
                raise answer
        told = [
            answer
            for answer in answers
            if not isinstance(answer, BaseException) or isinstance(answer, OSError)
        ]
        step.done(dict(zip(step.names, told, strict=True)))
        self._retire_others()

    def _retire_others(self) -> None:
        """Let go of the servers that no name stands for any more."""
        known = self._servers.addresses
        for server, pool in self._pools.items():
            if str(server) not in known:
                pool.retire()


async def _send_over(
    pool: AsyncPool, step: SendRequest | Connect, source: Source | None, on_sent: OnSent | None
) -> Outcome:
    if isinstance(step, Connect):
        await pool.connection()
        return None
    if source is None or step.offset is None:
        return await pool.call(step.request)
    source.move_to(step.offset)
    return await pool.call(step.request, source, on_sent)


def _end(pause: "asyncio.Future[None]") -> None:
    if not pause.done():
        pause.set_result(None)


async def _first_success(attempts: "Sequence[asyncio.Future[Outcome]]") -> "asyncio.Future[Outcome]":
    """Return the first attempt that succeeds, or the first one of all if none does."""
    waiting = set(attempts)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            outcome = attempt.result()
            if isinstance(outcome, PendingRequest) and outcome.error is None:
                return attempt
    return attempts[0]
