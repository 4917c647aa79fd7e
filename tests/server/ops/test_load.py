"""The load of the last seconds: what is recorded, and what that of several gateways is together."""

import pytest

from tests.server.fakes import FakeClock
from vipsrv.server.ops import live_view
from vipsrv.server.ops.live import KEPT_SECONDS, RECENT_SECONDS
from vipsrv.server.ops.load import LoadHistory

START = 1_000_000


class Workers:
    """Workers whose CPU seconds, by process id, the test sets; ``looked`` counts how often they were read."""

    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}
        self.waiting = 0
        self.looked = 0
        self.clock = FakeClock()
        self.load = LoadHistory(self._cpu_seconds, lambda: self.waiting, clock=self.clock)

    def _cpu_seconds(self) -> dict[int, float]:
        self.looked += 1
        return dict(self.cpu)

    def at(self, second: float, **cpu: float) -> None:
        """The watch at this second, at which the workers have used so much."""
        self.cpu = {int(name.removeprefix("w")): seconds for name, seconds in cpu.items()}
        self.clock.now = START + second
        self.load.watch(self.clock.now)


@pytest.fixture
def workers() -> Workers:
    return Workers()


def test_each_second_has_its_load(workers: Workers) -> None:
    workers.at(0.05, w7=10.0, w8=20.0)
    workers.waiting = 3
    workers.at(1.05, w7=10.5, w8=20.25)
    workers.waiting = 0
    workers.at(3.05, w7=12.5, w8=20.25)  # the event loop was late
    recent = workers.load.recent()
    assert recent["second"] == START + 2
    assert recent["seconds"] == [None, (None, 0), (0.75, 3), None, (1.0, 0)]


def test_a_second_is_recorded_once(workers: Workers) -> None:
    for tenth in range(10):
        workers.at(5 + tenth / 10, w7=1.0)
    assert workers.looked == 1
    assert workers.load.recent()["seconds"].count(None) == RECENT_SECONDS - 1


def test_a_worker_that_has_started_or_ended_does_not_count(workers: Workers) -> None:
    workers.at(0, w7=10.0, w8=99.0)
    workers.at(1, w7=10.5, w9=30.0)
    workers.at(2, w10=1.0)
    assert workers.load.recent()["seconds"][-2:] == [(0.5, 0), (None, 0)]


def test_whoever_asks_first_gets_the_last_second_as_well(workers: Workers) -> None:
    workers.at(0, w7=10.0)
    workers.clock.now = START + 1
    workers.cpu = {7: 10.25}
    assert workers.load.recent()["seconds"][-1] == (0.25, 0)


def test_only_some_minutes_are_kept(workers: Workers) -> None:
    for second in range(KEPT_SECONDS + 50):
        workers.at(second, w7=float(second))
    history = workers.load.history()
    assert len(history["seconds"]) == len(workers.load._seconds) == KEPT_SECONDS
    assert set(history["seconds"]) == {(1.0, 0)}


def test_gateways_together(workers: Workers) -> None:
    other = Workers()
    other.waiting = 2
    for second in range(3):
        workers.at(second, w7=second / 2)
        other.at(second, w8=second / 4)
    other.at(3, w8=9.0)  # it is asked a little later
    counts = {"second": START + 1, "seconds": [None] * RECENT_SECONDS, "stages": {}}
    snapshots = [{"counts": counts, "load": one.load.recent()} for one in (workers, other)]
    columns = live_view.history(snapshots)
    assert columns["second"] == START + 1
    assert columns["cores"] == [None, None, None, 0.75, 0.75]
    assert columns["waiting"] == [None, None, 2, 2, 2]
