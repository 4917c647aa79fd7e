"""A supervisor in this process, with real gateways."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.images import jpeg
from vipsrv.client import AsyncClient
from vipsrv.errors import SettingsError, StartFailed
from vipsrv.server.gateways import supervisor as module
from vipsrv.server.gateways.gateway_process import ProcessState
from vipsrv.server.gateways.supervisor import Supervisor, SupervisorState
from vipsrv.server.settings import ServerSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**{"gateways": 2, "workers": 2, "port": 0, **given})


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    one = Supervisor(settings())
    await one.start()
    yield one
    await one.stop()


async def test_a_gateway_that_hangs_is_killed_and_replaced(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    victim = supervisor._processes[0]
    os.kill(victim.pid, signal.SIGSTOP)
    monkeypatch.setattr(module, "SILENT_SECONDS", 3.0)
    await victim.ended.wait()
    monkeypatch.undo()
    assert "gateway 1 is killed: nothing was heard of it for 3 s" in caplog.text
    while supervisor._processes[0] is victim or supervisor._processes[0].state is not ProcessState.SERVING:
        await asyncio.sleep(0.01)
    assert supervisor._borrowers == {}


async def test_a_reload_is_refused_by_all_if_one_does_not_answer(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipsrv.server.gateways.gateway_process.ANSWER_SECONDS", 0.5)
    os.kill(supervisor._processes[1].pid, signal.SIGSTOP)
    with pytest.raises(SettingsError, match=r"gateway 2 did not answer within 0\.5 s"):
        await supervisor.prepare_reload(settings(max_upload=5000))
    monkeypatch.undo()
    asyncio.get_running_loop().call_soon(os.kill, supervisor._processes[1].pid, signal.SIGCONT)
    # The late answer is not taken for that to the next question.
    take_over = await supervisor.prepare_reload(settings(max_upload=6000))
    await take_over()
    for _ in range(20):
        async with AsyncClient(port=supervisor._listeners.addresses[0].port) as client:
            assert (await client.hello()).limits.max_upload == 6000


async def test_a_stop_kills_a_gateway_that_does_not_end(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.5)
    pids = [process.pid for process in supervisor._processes]
    os.kill(pids[0], signal.SIGSTOP)
    await supervisor.stop()
    assert supervisor._state is SupervisorState.ENDED
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_it_serves_and_drains() -> None:
    one = Supervisor(settings())
    (address,) = await one.start()
    await one.announce([address])
    async with AsyncClient(port=address.port) as client:
        assert (await client.resize(jpeg(), width=20, height=10)).data
    await one.drain()
    await one.stop()
    assert [process.state for process in one._processes] == [ProcessState.ENDED] * 2


async def test_a_start_that_fails_ends_all() -> None:
    one = Supervisor(settings(spool_dir="/nowhere"))
    with pytest.raises(StartFailed, match=r"gateway \d: the spool folder /nowhere is not writable"):
        await one.start()
    assert [process.state for process in one._processes] == [ProcessState.ENDED] * 2
