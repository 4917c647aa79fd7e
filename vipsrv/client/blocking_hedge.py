"""Sends a request for a blocking client, and to a second server when it is time, in the caller's thread."""

import threading
import time
from collections.abc import Callable

from vipsrv.address import Address
from vipsrv.client.blocking_pool import BlockingPool, Started
from vipsrv.client.calls import SendRequest
from vipsrv.client.core import PendingRequest
from vipsrv.client.hedge import Hedging
from vipsrv.client.servers import Place
from vipsrv.client.sources import OnSent, Source
from vipsrv.client.timeouts import Timeout, has_passed, too_long, until_deadline
from vipsrv.errors import ClientTimeout, VipsrvError


class HedgedCall:
    """One attempt of a call, which may become two. ``pool`` returns the pool of a server."""

    def __init__(
        self, hedging: Hedging, pool: Callable[[Address], BlockingPool], timeout: Timeout, step: SendRequest
    ) -> None:
        self._hedging, self._pool, self._timeout, self._step = hedging, pool, timeout, step
        self._done = threading.Event()
        self._running: list[Started] = []
        self._place: Place[Address] | None = None  # of the second attempt, until it has ended

    def make(self, first: BlockingPool, source: Source, on_sent: OnSent | None) -> PendingRequest:
        """Send the request and wait until it ends. Raises ``ClientTimeout``."""
        started = time.monotonic()
        at = self._hedging.delay()
        again = source.copy()
        try:
            self._running.append(
                first.start(self._step.request, source, on_sent, self._done, self._step.until)
            )
            ended = self._wait(started, None if at is None else started + at, again)
        finally:
            for one in self._running:
                one.abandon()
            if self._place is not None:
                self._hedging.end(self._place, None, cancelled=True)
        if ended.error is None:
            self._hedging.note(time.monotonic() - started)
        return ended

    def _wait(self, since: float, hedge_at: float | None, again: Source) -> PendingRequest:
        limit = until_deadline(self._timeout.reply, self._step.until)
        while True:
            self._done.clear()
            ended = self._take_ended()
            if ended is not None:
                return ended
            pause = min(one.connection.look(since) for one in self._running)
            now = time.monotonic()
            if hedge_at is not None:
                if now >= hedge_at:
                    hedge_at = None
                    self._start_second(again)
                    continue
                pause = min(pause, hedge_at - now)
            if limit is not None:
                if now >= since + limit:
                    raise self._too_late()
                pause = min(pause, since + limit - now)
            self._done.wait(pause)

    def _take_ended(self) -> PendingRequest | None:
        """Return a request that has succeeded, or the last one that has failed."""
        for one in [*self._running]:
            pending = one.pending
            if not pending.done:
                continue
            self._running.remove(one)
            one.end()
            if one.second and self._place is not None:
                self._hedging.end(self._place, pending.error)
                self._place = None
            if pending.error is None or not self._running:
                pending.hedged = one.second
                return pending
        return None

    def _start_second(self, again: Source) -> None:
        """Send the request to another server, over a connection that is open: to connect takes too long."""
        self._place = self._hedging.second(self._step.server)
        if self._place is None:
            return
        step = self._step._replace(server=self._place.server.endpoint)
        pool = self._pool(self._place.server.endpoint)
        try:
            if pool.connected:
                second = pool.start(step.request, again, None, self._done, step.until)
                second.second = True
                self._running.append(second)
                return
        except VipsrvError as error:
            self._hedging.end(self._place, error)
        else:
            self._hedging.end(self._place, None, cancelled=True)
        self._place = None

    def _too_late(self) -> ClientTimeout:
        if has_passed(self._step.until):
            return too_long(self._timeout, f"{self._step.server} has not answered")
        return ClientTimeout(f"{self._step.server} has not answered within {self._timeout.reply} s")
