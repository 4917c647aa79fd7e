"""A supervisor in this process, with real gateways."""

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.identity.records import add
from tests.support.images import jpeg
from vipsrv.client import AsyncClient
from vipsrv.errors import Busy, SettingsError, StartFailed
from vipsrv.server.gateways import supervisor as module
from vipsrv.server.gateways.gateway_process import ProcessState
from vipsrv.server.gateways.messages import Channel
from vipsrv.server.gateways.supervisor import Supervisor
from vipsrv.server.identity.shared_quotas import SharedQuotas
from vipsrv.server.server_state import ServerState
from vipsrv.server.settings import ServerSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**{"gateways": 2, "workers": 2, "port": 0, "ops_listen": "off", **given})


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
    assert supervisor._state is ServerState.ENDED
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


async def test_a_drain_and_a_start_are_watched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 3.0)
    one = Supervisor(settings(drain=600))
    starting = asyncio.create_task(one.start())
    while len(one._processes) < 2:
        await asyncio.sleep(0)
    for process in one._processes:  # both, because one that only starts slowly may be silent as well
        os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(StartFailed, match=r"gateway \d: it was killed by SIGKILL"):
        await starting
    monkeypatch.undo()
    again = Supervisor(settings(drain=600))
    (address,) = await again.start()
    monkeypatch.setattr(module, "SILENT_SECONDS", 3.0)
    async with AsyncClient(port=address.port):
        os.kill(again._processes[1].pid, signal.SIGSTOP)
        await again.drain()
    await again.stop()
    assert "gateway 2 is killed: nothing was heard of it for 3 s" in caplog.text


async def test_signs_of_life_that_were_not_read_do_not_count_as_missing(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 3.0)
    time.sleep(4)  # noqa: ASYNC251 - this process is stopped, and the gateways go on
    pids = [process.pid for process in supervisor._processes]
    for _ in range(2):  # looks
        await asyncio.sleep(module.WATCH_SECONDS)
    await supervisor.prepare_reload(settings())
    assert [process.pid for process in supervisor._processes] == pids
    assert all(process.state is ProcessState.SERVING for process in supervisor._processes)


async def test_a_system_without_room_for_a_process_is_asked_again_after_growing_pauses(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    pauses: list[float] = []
    enough = asyncio.Event()
    sleep = asyncio.sleep

    def refuse(*_: object, **__: object) -> None:
        if len(pauses) > 4:
            enough.set()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def noted(seconds: float, *rest: Any) -> None:
        if seconds not in (0, module.WATCH_SECONDS):
            pauses.append(seconds)
        await sleep(seconds, *rest)

    supervisor._processes[0].serving_since -= 1000  # it has served for long
    with monkeypatch.context() as refusing:
        refusing.setattr(asyncio, "sleep", noted)
        refusing.setattr("vipsrv.server.gateways.gateway_process.subprocess.Popen", refuse)
        supervisor._processes[0].kill()
        await enough.wait()
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert "gateway 1 cannot be replaced yet: no process can be started: Resource temporarily" in caplog.text
    while supervisor._processes[0].state is not ProcessState.SERVING:
        await asyncio.sleep(0.01)


async def test_a_gateway_that_starts_during_a_reload_gets_the_new_settings(supervisor: Supervisor) -> None:
    before = supervisor._processes[0]
    take_over = await supervisor.prepare_reload(settings(max_upload=6000))
    opening = asyncio.Event()
    goes_on = asyncio.Event()
    pair = Channel.pair

    async def held(*_: object) -> Any:
        opening.set()
        await goes_on.wait()
        return await pair()

    with pytest.MonkeyPatch.context() as holding:
        holding.setattr(Channel, "pair", held)
        before.kill()
        await opening.wait()
        await take_over()
        goes_on.set()
        while supervisor._processes[0] is before:
            await asyncio.sleep(0.01)
    replacement = supervisor._processes[0]
    await replacement.started()
    while replacement.state is not ProcessState.SERVING:
        await asyncio.sleep(0.01)
    assert supervisor._processes[0] is replacement
    for _ in range(20):
        async with AsyncClient(port=supervisor._listeners.addresses[0].port) as client:
            assert (await client.hello()).limits.max_upload == 6000


async def test_what_a_dead_gateway_had_in_flight_counts_no_longer_while_it_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens.toml"
    shop = add(tokens, "shop", limits={"in_flight": 1})
    one = Supervisor(settings(tokens=tokens))
    (address,) = await one.start()
    try:
        record = SharedQuotas(one._quotas, 2, 0).record("shop")
        assert record is not None
        record.add_in_flight(1)  # of gateway 1
        async with AsyncClient(port=address.port, token=shop.text) as client:
            with pytest.raises(Busy, match="in flight"):
                await client.resize(jpeg(), width=20, height=10)
        monkeypatch.setattr(module, "_FIRST_PAUSE", 600.0)
        monkeypatch.setattr(module, "_LONGEST_PAUSE", 600.0)
        victim = one._processes[0]
        victim.kill()
        await victim.ended.wait()
        while 0 not in one._borrowers:
            await asyncio.sleep(0.01)
        async with AsyncClient(port=address.port, token=shop.text) as client:
            assert (await client.resize(jpeg(), width=20, height=10)).data
    finally:
        await one.stop()
