"""The registry of open connections, and the checks that all protocols share."""

import asyncio
from pathlib import Path

import pytest

from tests.server.fakes import FakeWorkers, make_context
from vipsrv.errors import Draining, TooLarge
from vipsrv.server.context import OpenConnections


class IdleConnection:
    """A connection that nothing happens on."""

    def watch(self, now: float) -> None: ...
    def drain(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self) -> None: ...


def test_excess_clients_are_not_counted_and_their_number_is_limited() -> None:
    connections = OpenConnections(limit=2)
    served, told_busy = ([IdleConnection() for _ in range(2)] for _ in range(2))
    closed_at_once = IdleConnection()
    for one in served:
        connections.add(one)
    for one in (*told_busy, closed_at_once):
        assert connections.served == 2
        connections.add(one)
        assert connections.served == 3
        assert connections.turn_away(one) is (one is not closed_at_once)
    assert connections.served == 2
    assert set(connections) == {*served, *told_busy, closed_at_once}
    for open_one in connections:
        connections.remove(open_one)
    assert connections.served == 0


async def test_waiting_ends_when_the_last_connection_is_closed() -> None:
    connections = OpenConnections(limit=2)
    one = IdleConnection()
    connections.add(one)
    await connections.wait_until_closed(0.001)
    assert set(connections) == {one}
    waiting = asyncio.create_task(connections.wait_until_closed(20))
    await asyncio.sleep(0)
    connections.remove(one)
    await waiting
    await connections.wait_until_closed(20)


def test_uploads_are_checked_for_size_and_for_a_drain(tmp_path: Path) -> None:
    context = make_context(tmp_path, FakeWorkers(), max_upload=10)
    context.check_upload(10)
    with pytest.raises(TooLarge, match="11 bytes, 1 over the limit of 10"):
        context.check_upload(11)
    context.draining = True
    with pytest.raises(Draining):
        context.check_upload(10)
    context.spool.close()
