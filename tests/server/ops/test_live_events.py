"""The stream of live figures: what a watcher gets, and when nothing is computed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.server.logs.lines import full_line
from tests.server.ops.test_live import Gateway
from vipsrv.errors import Busy
from vipsrv.server.http.messages import HttpRequest
from vipsrv.server.ops.live_events import HISTORY, LIVE, MOST_MISSED, MOST_WATCHERS, LiveEvents
from vipsrv.server.ops.snapshots import Snapshots

TICK = 0.02
REQUEST = HttpRequest(method="GET", path="/events", query="", fields={}, body_size=0, peer=None, tls=False)


class Watcher:
    """Reads the stream; while it is ``deaf`` it takes nothing."""

    def __init__(self, events: LiveEvents) -> None:
        stream = events.answer(REQUEST)
        self.headers = dict(stream.headers)
        self.sent = b""
        self.offered = 0
        self.deaf = False
        self._more = asyncio.Event()
        self.leave: Callable[[], None] = stream.subscribe(self._send)

    def _send(self, data: bytes) -> bool:
        self.offered += 1
        self._more.set()
        if self.deaf:
            return False
        self.sent += data
        return True

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._more.clear()
                await self._more.wait()

    async def wait_for(self, name: str, number: int = 1) -> list[Any]:
        """Wait for so many events with a name; return the data of all."""
        await self.wait_until(lambda: len(self.events(name)) >= number)
        return self.events(name)

    def events(self, name: str) -> list[Any]:
        found = []
        for block in self.sent.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            if fields.get("event") == name:
                found.append(json.loads(fields["data"]))
        return found


class Server:
    """A stream over the figures of a gateway that the test controls; ``asked`` counts the snapshots."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self.asked = 0
        snapshots = Snapshots()
        snapshots.add(LIVE, self._snapshot)
        snapshots.add(HISTORY, self._history)
        self.events = LiveEvents(snapshots, tick=TICK)
        self.watchers: list[Watcher] = []

    def _snapshot(self) -> dict[str, Any]:
        self.asked += 1
        return self.gateway.snapshot()

    def _history(self) -> dict[str, Any]:
        return {"counts": self.gateway.figures.history(), "load": self.gateway.load.history()}

    def watch(self) -> Watcher:
        self.watchers.append(Watcher(self.events))
        return self.watchers[-1]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    for watcher in server.watchers:
        watcher.leave()


async def test_a_watcher_gets_the_past_the_errors_and_then_what_is_live(server: Server) -> None:
    server.gateway.end(full_line())
    server.gateway.end(full_line(error=Busy("full")))
    server.gateway.at(1)
    watcher = server.watch()
    (history, *_) = await watcher.wait_for("history")
    (errors, *_) = await watcher.wait_for("errors")
    (live, *_) = await watcher.wait_for("live", 2)
    assert watcher.headers["Content-Type"].startswith("text/event-stream")
    assert watcher.sent.startswith(b"retry: ")
    assert history["ok"][-1] == 1
    assert [error["code"] for error in errors["last"]] == ["busy"]
    assert live["columns"]["ok"][-1] == 1
    assert f"id: {live['columns']['second']}\n".encode() in watcher.sent


async def test_new_errors_are_told_once(server: Server) -> None:
    watcher = server.watch()
    await watcher.wait_for("live", 2)
    before = len(watcher.events("errors"))
    server.gateway.end(full_line(error=Busy("full")))
    await watcher.wait_for("errors", before + 1)
    number = len(watcher.events("live"))
    await watcher.wait_for("live", number + 3)
    assert len(watcher.events("errors")) == before + 1


async def test_all_watchers_share_one_snapshot(server: Server) -> None:
    watchers = [server.watch() for _ in range(5)]
    for watcher in watchers:
        await watcher.wait_for("history")
    asked, seen = server.asked, len(watchers[0].events("live"))
    await watchers[0].wait_for("live", seen + 4)
    assert server.asked - asked <= 5


async def test_nothing_is_computed_without_a_watcher(server: Server) -> None:
    watcher = server.watch()
    await watcher.wait_for("live")
    watcher.leave()
    watcher.leave()  # a connection may end twice
    assert server.events.watchers == 0
    assert server.events._ticking is None
    await server.watch().wait_for("live")  # and it begins again


async def test_a_watcher_that_takes_nothing_is_forgotten(server: Server) -> None:
    deaf, other = server.watch(), server.watch()
    await deaf.wait_for("live")
    deaf.deaf = True
    offered = deaf.offered
    seen = len(other.events("live"))
    await other.wait_for("live", seen + MOST_MISSED + 3)
    assert server.events.watchers == 1
    assert deaf.offered - offered <= MOST_MISSED + 1


async def test_the_number_of_watchers_is_bounded(server: Server) -> None:
    for _ in range(MOST_WATCHERS):
        server.watch()
    with pytest.raises(Busy):
        server.watch()
    server.watchers[0].leave()
    server.watch()


async def test_a_failure_does_not_end_the_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = server.watch()
    await watcher.wait_for("live")
    seen = len(watcher.events("live"))
    failures = iter([True, True])
    figures = server.gateway.figures
    recent = figures.recent
    monkeypatch.setattr(figures, "recent", lambda: 1 / 0 if next(failures, False) else recent())
    await watcher.wait_for("live", seen + 2)
    assert next(failures, None) is None
    assert caplog.text.count("could not be sent") == 2
