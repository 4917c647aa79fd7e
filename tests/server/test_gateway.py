"""The gateway's own clock."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from vipsrv.server import gateway as gateway_module
from vipsrv.server.gateway import Gateway
from vipsrv.server.session import Session
from vipsrv.server.settings import ServerSettings


class Watched:
    """In the place of a session: counts how often its clock is looked at."""

    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self._error = error

    def watch(self, _now: float) -> None:
        self.looks += 1
        if self._error is not None:
            raise self._error


def test_a_bug_in_one_session_does_not_stop_the_clock_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gateway_module, "WATCH_SECONDS", 0)

    async def test() -> None:
        gateway = Gateway(ServerSettings(spool_dir=tmp_path))
        broken, *others = Watched(ZeroDivisionError("a bug")), Watched(), Watched()
        for one in (others[0], broken, others[1]):
            gateway.session_opened(cast("Session", one))
        watching = asyncio.create_task(gateway._watch())
        while not (broken.looks > 1 and all(one.looks > 1 for one in others)):
            assert not watching.done()
            await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(asyncio.wait_for(test(), 20))
    assert "a bug" in caplog.text


def test_who_is_turned_away_takes_no_place_and_is_bounded(tmp_path: Path) -> None:
    gateway = Gateway(ServerSettings(spool_dir=tmp_path, connections=2))
    served, away, not_even_told = [[cast("Session", Watched()) for _ in range(count)] for count in (2, 2, 1)]
    for one in served:
        gateway.session_opened(one)
        assert gateway.connections <= 2
    for one, told in (*((one, True) for one in away), (not_even_told[0], False)):
        gateway.session_opened(one)
        assert gateway.connections == 3
        assert gateway.turn_away(one) is told
        assert gateway.connections == 2
    for one in (*served, *away, *not_even_told):
        gateway.session_closed(one)
    assert gateway.connections == 0
