"""The gateway's own clock."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import bare_client
from vipsrv.errors import StartFailed
from vipsrv.server.accounts import Accounts
from vipsrv.server.gateway import Gateway, check_timeouts
from vipsrv.server.ops.load import LoadHistory
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.pool import WorkerPool


class Watched:
    """Stands for a connection: counts how often its deadlines are checked."""

    watch_at = 0.0

    def __init__(self, error: Exception | None = None) -> None:
        self.checks = 0
        self._error = error

    def watch(self, now: float) -> None:
        assert now > 0
        self.checks += 1
        if self._error is not None:
            raise self._error

    def drain(self) -> None: ...
    def give_way(self) -> bool:
        return False

    def stop(self) -> None: ...
    def abort(self) -> None: ...


def test_a_bug_in_one_connection_does_not_stop_the_clocks_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, broken, last = Watched(), Watched(ZeroDivisionError("a bug")), Watched()
    check_timeouts([first, broken, last], 1.0)
    assert (first.checks, broken.checks, last.checks) == (1, 1, 1)
    assert "a bug" in caplog.text


async def test_accounts_without_connections_are_forgotten_regularly(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = asyncio.Event()
    monkeypatch.setattr(Accounts, "forget_unused", lambda _: forgotten.set())
    gateway = Gateway(ServerSettings(workers=1, port=0, ops_listen="off"))
    await gateway.start()
    try:
        await asyncio.wait_for(forgotten.wait(), bare_client.SECONDS)
    finally:
        await gateway.stop()


async def test_the_load_is_recorded_though_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = asyncio.Event()
    monkeypatch.setattr(LoadHistory, "watch", lambda *_: recorded.set())
    gateway = Gateway(ServerSettings(workers=1, port=0, ops_listen="127.0.0.1:0"))
    await gateway.start()
    try:
        await asyncio.wait_for(recorded.wait(), bare_client.SECONDS)
    finally:
        await gateway.stop()


async def test_traces_without_their_extra_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vipsrv.server.otel.telemetry", None)
    gateway = Gateway(ServerSettings(port=0, workers=1, spool_dir=tmp_path, otel=True))
    with pytest.raises(StartFailed, match=r"--otel: .* install 'vipsrv\[otel\]'"):
        await gateway.start()


@pytest.mark.parametrize(("ttl", "offered"), [(0, None), (60, {"ttl_s": 60, "max_bytes": 1000})])
async def test_a_hello_says_whether_uploads_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttl: float, offered: dict[str, int] | None
) -> None:
    # As if a worker had started, which names them.
    monkeypatch.setattr(WorkerPool, "formats", SimpleNamespace(readers={}, writers={}))
    gateway = Gateway(ServerSettings(spool_dir=tmp_path, upload_ttl=ttl, max_upload=1000))
    try:
        assert gateway._describe().get("uploads") == offered
    finally:
        await gateway.stop()
