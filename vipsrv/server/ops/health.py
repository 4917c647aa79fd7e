"""Whether the server is alive and ready: what ``/livez``, ``/readyz`` and ``vipsrv health`` tell.

Alive is a server whose event loop answers; to restart it would not help with anything else. Ready is one that
accepts requests, has workers, and whose canary came back in time. Of a server with several gateways at least
one has to be ready: the supervisor replaces the others, and clients of one that has ended go to another.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from vipsrv.errors import Draining
from vipsrv.server.http.messages import HttpRequest, HttpResponse
from vipsrv.server.http.routes import Page
from vipsrv.server.ops.canary import LIMIT_SECONDS, Canary
from vipsrv.server.ops.snapshots import Snapshots
from vipsrv.workers.process import WorkerProcess, WorkerState

READINESS = "readiness"
"""The name of the snapshot."""

FRESH_SECONDS = 1.0
"""So long a good answer is given again: many probes cost no more than one."""

PEER_SECONDS = 0.25
"""How long a gateway that is asked by another one waits for its canary: less than it may take to answer."""

_OK, _UNAVAILABLE = 200, 503

_log = logging.getLogger(__name__)


class Pool(Protocol):
    """The part of the worker pool that is looked at."""

    @property
    def workers(self) -> Collection[WorkerProcess]:
        """The workers that run or start."""

    @property
    def size(self) -> int:
        """The number of workers that the pool maintains."""

    def check_ready(self) -> None:
        """Raise ``Draining`` if no worker has been ready for a while."""


class Service(Protocol):
    """The part of the server's context that is looked at."""

    withdrawn: bool
    draining: bool
    has_successor: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, whether it is as it should be, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the server is ready: the ``checks`` of the gateway that was asked, and how many are ready."""

    checks: tuple[Check, ...]
    gateways: int = 1
    gateways_ready: int = 0

    @property
    def ready(self) -> bool:
        """Whether clients should send requests."""
        return self.gateways_ready > 0

    @property
    def reason(self) -> str:
        """Why it is not ready, or what is not as it should be although it is; empty if all is well."""
        own = "; ".join(check.detail for check in self.checks if not check.ok)
        if self.gateways in (1, self.gateways_ready):
            return own
        share = f"{self.gateways_ready} of {self.gateways} gateways are ready"
        return f"{share}; {own}" if own else share

    def as_json(self) -> dict[str, Any]:
        """The members of the JSON reply."""
        return {
            "ready": self.ready,
            "reason": self.reason,
            "gateways": {"ready": self.gateways_ready, "total": self.gateways},
            "checks": [asdict(check) for check in self.checks],
        }


class Health:
    """What is known about the health of this gateway, and of the others by their ``snapshots``."""

    def __init__(
        self,
        service: Service,
        pool: Pool,
        canary: Canary,
        snapshots: Snapshots,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._pool = pool
        self._canary = canary
        self._snapshots = snapshots
        self._clock = clock
        self._last = Readiness((), gateways_ready=1)
        self._last_at = -FRESH_SECONDS
        self._looking: asyncio.Task[Readiness] | None = None
        self.has_started = False
        """Whether all workers have started; the server accepts no requests before."""
        snapshots.add(READINESS, self._snapshot)

    async def readiness(self) -> Readiness:
        """Look at everything, unless all was well a moment ago. All who ask meanwhile get the same answer."""
        if self._service.draining and self._service.has_successor and not self._service.withdrawn:
            # The probe has connected just before the other server took over: that one is ready.
            served = Check("serving", ok=True, detail="another server has taken the place of this one")
            return Readiness((served,), gateways_ready=1)
        if self._stops or not self.has_started:
            return Readiness(await self._checks(0))
        if self._looking is None:
            if self._last.ready and self._clock() < self._last_at + FRESH_SECONDS:
                return self._last
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    @property
    def _stops(self) -> bool:
        return self._service.withdrawn or self._service.draining

    async def _look(self) -> Readiness:
        try:
            # The others send their canaries at the same time.
            checks, others = await asyncio.gather(
                self._checks(LIMIT_SECONDS), self._snapshots.of_others(READINESS)
            )
            own = all(check.ok for check in checks)
            if not own:  # by now theirs are late as well, if they do not come back
                others = await self._snapshots.of_others(READINESS)
        finally:
            self._looking = None
        readiness = Readiness(
            checks,
            gateways=1 + len(others.values) + len(others.silent),
            gateways_ready=own + sum(map(bool, others.values)),
        )
        self._tell(readiness)
        self._last, self._last_at = readiness, self._clock()
        return readiness

    def _tell(self, readiness: Readiness) -> None:
        """Log a change. It is noticed when somebody asks."""
        if readiness.ready != self._last.ready and not self._stops:
            if readiness.ready:
                _log.info("the server is ready again")
            else:
                _log.error("the server is not ready: %s", readiness.reason)

    async def _snapshot(self) -> bool:
        return all(check.ok for check in await self._checks(PEER_SECONDS))

    async def _checks(self, patience: float) -> tuple[Check, ...]:
        if self._service.draining:
            return (Check("serving", ok=False, detail="the server is draining: it stops"),)
        if self._service.withdrawn:
            return (Check("serving", ok=False, detail="the server is about to stop"),)
        if not self.has_started:
            return (Check("serving", ok=False, detail="the server is starting"),)
        serving = Check("serving", ok=True, detail="requests are accepted")
        workers = self._workers()
        if not workers.ok:
            return serving, workers
        report = await self._canary.report(patience)
        return serving, workers, Check("canary", ok=report.passes, detail=report.detail)

    def _workers(self) -> Check:
        ready = sum(one.state in (WorkerState.IDLE, WorkerState.BUSY) for one in self._pool.workers)
        try:
            self._pool.check_ready()
        except Draining as error:
            return Check("workers", ok=False, detail=str(error))
        return Check("workers", ok=True, detail=f"{ready} of {self._pool.size} workers are ready")


def health_pages(health: Health) -> dict[str, Page]:
    """Return the pages by their paths."""

    async def readyz(request: HttpRequest) -> HttpResponse:
        readiness = await health.readiness()
        status = _OK if readiness.ready else _UNAVAILABLE
        if _wants_json(request):
            return _json(status, readiness.as_json())
        word = "ready" if readiness.ready else "not ready"
        lines = [f"{word}: {readiness.reason}" if readiness.reason else word]
        if _is_verbose(request):
            lines[:0] = [f"[{'+' if one.ok else '-'}] {one.name}: {one.detail}" for one in readiness.checks]
        return _text(status, lines)

    def livez(request: HttpRequest) -> HttpResponse:
        if _wants_json(request):
            return _json(_OK, {"alive": True})
        return _text(_OK, ["[+] event loop: it answers"] * _is_verbose(request) + ["alive"])

    return {"/livez": Page(livez), "/readyz": Page(readyz)}


def _is_verbose(request: HttpRequest) -> bool:
    with suppress(ValueError):
        return "verbose" in parse_qs(request.query, keep_blank_values=True)
    return False


def _wants_json(request: HttpRequest) -> bool:
    """Whether the client names JSON, which no browser and no probe does by itself."""
    ranges = request.fields.get("accept", "").lower().split(",")
    return any(one.partition(";")[0].strip() == "application/json" for one in ranges)


def _text(status: int, lines: list[str]) -> HttpResponse:
    return _response(status, "text/plain; charset=utf-8", "\n".join(lines) + "\n")


def _json(status: int, members: dict[str, Any]) -> HttpResponse:
    return _response(status, "application/json", json.dumps(members) + "\n")


def _response(status: int, kind: str, body: str) -> HttpResponse:
    # A cache between a probe and the server would tell how it was. The reply depends on Accept.
    headers = (("Content-Type", kind), ("Cache-Control", "no-store"), ("Vary", "Accept"))
    return HttpResponse(status=status, headers=headers, body=body.encode())
