"""``/events``: the live figures as server-sent events, once a second, for the page and ``vipsrv top``.

::

    first watcher ──► ticks begin ── once a second: collect, merge, encode once ──► all watchers
    last one leaves ──► ticks end, and nothing is computed any more

A watcher first gets ``history`` and ``errors``, then ``live`` every second, and ``errors`` again when there
are new ones (WHATWG HTML, 9.2).
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vipsrv.errors import Busy
from vipsrv.server.context import ServerContext
from vipsrv.server.http.messages import HttpRequest, HttpStream, Send
from vipsrv.server.ops import live_view
from vipsrv.server.ops.gauges import Gauges
from vipsrv.server.ops.live import LiveFigures
from vipsrv.server.ops.load import LoadHistory
from vipsrv.server.ops.snapshots import Snapshots
from vipsrv.workers.pool import WorkerPool

LIVE, HISTORY = "live", "live-history"
"""The names of the snapshots."""

MOST_WATCHERS = 32
"""Streams that are served at the same time."""

MOST_MISSED = 5
"""Seconds in a row of which a watcher takes no event before it is forgotten."""

_TICK_SECONDS = 1.0
_TICK_OFFSET = 0.1  # seconds after a full one of the clock, so that all gateways have counted the same ones
_RETRY_MS = 2000

_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),  # nginx passes each event on at once
)

_log = logging.getLogger(__name__)


def add_live_figures(context: ServerContext, pool: WorkerPool, snapshots: Snapshots) -> LoadHistory:
    """Count the requests of a gateway from now on, and offer the figures as snapshots.

    Returns what has to ``watch`` the load.
    """
    figures, gauges = LiveFigures(), Gauges(context, pool)
    load = LoadHistory(gauges.cpu_seconds, gauges.waiting)
    context.ended_requests.add(figures)

    def read_live() -> dict[str, Any]:
        return {
            "counts": figures.recent(),
            "load": load.recent(),
            "statuses": figures.statuses(),
            "errors": figures.errors(),
            "gauges": gauges.read(),
        }

    def read_history() -> dict[str, Any]:
        return {"counts": figures.history(), "load": load.history()}

    snapshots.add(LIVE, read_live)
    snapshots.add(HISTORY, read_history)
    return load


@dataclass(slots=True, eq=False)
class _Watcher:
    """A client that reads the stream; it has taken no event for ``missed`` seconds."""

    send: Send
    missed: int = 0


class LiveEvents:
    """The stream of the live figures in ``snapshots``, with an event every ``tick`` seconds."""

    def __init__(self, snapshots: Snapshots, *, tick: float = _TICK_SECONDS) -> None:
        self._snapshots = snapshots
        self._tick = tick
        self._watchers: set[_Watcher] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._welcomes: set[asyncio.Task[None]] = set()
        self._errors = ""  # as last sent

    @property
    def watchers(self) -> int:
        """How many clients read the stream."""
        return len(self._watchers)

    def answer(self, _request: HttpRequest) -> HttpStream:
        """Return the stream. Raises ``Busy`` if too many clients read it."""
        if len(self._watchers) >= MOST_WATCHERS:
            raise Busy(f"{MOST_WATCHERS} clients already watch the live figures", retry_after_ms=5000)
        return HttpStream(headers=_HEADERS, subscribe=self._subscribe)

    def _subscribe(self, send: Send) -> Callable[[], None]:
        watcher = _Watcher(send)
        self._watchers.add(watcher)
        send(f"retry: {_RETRY_MS}\n\n".encode())
        welcome = asyncio.get_running_loop().create_task(self._welcome(watcher))
        self._welcomes.add(welcome)
        welcome.add_done_callback(self._welcomes.discard)
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._run())

        def unsubscribe() -> None:
            welcome.cancel()
            self._forget(watcher)

        return unsubscribe

    def _forget(self, watcher: _Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    async def _welcome(self, watcher: _Watcher) -> None:
        try:
            history = live_view.history(await self._snapshots.collect(HISTORY))
            errors = live_view.errors([one["errors"] for one in await self._snapshots.collect(LIVE)])
        except Exception:  # noqa: BLE001 - logged with its traceback; the watcher still gets the live events
            _log.exception("the figures of the last minutes could not be sent")
        else:
            watcher.send(_event("history", history) + _event("errors", errors))

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            await asyncio.sleep(self._tick - (now - _TICK_OFFSET) % self._tick)
            try:
                await self._send_all()
            except Exception:  # noqa: BLE001 - logged with its traceback; one failure must not end the stream
                _log.exception("the live figures could not be sent")

    async def _send_all(self) -> None:
        answers = await self._snapshots.survey(LIVE)
        snapshots = answers.values
        live = live_view.live(snapshots, time.time(), silent=answers.silent)
        data = _event("live", live, number=live["columns"]["second"])
        errors = live_view.errors([one["errors"] for one in snapshots])
        text = json.dumps(errors["last"])
        if text != self._errors:
            self._errors = text
            data += _event("errors", errors)
        for watcher in list(self._watchers):
            if watcher.send(data):
                watcher.missed = 0
                continue
            watcher.missed += 1
            if watcher.missed >= MOST_MISSED:
                self._forget(watcher)


def _event(name: str, value: dict[str, Any], *, number: int | None = None) -> bytes:
    """Return one event with its data as JSON, which has no line ends."""
    text = json.dumps(value, separators=(",", ":"))
    identity = "" if number is None else f"id: {number}\n"
    return f"{identity}event: {name}\ndata: {text}\n\n".encode()
