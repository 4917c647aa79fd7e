"""Live figures: what a gateway counts, and what several of them come to together."""

import json
from typing import Any

import pytest

from tests.server.fakes import FakeClock
from tests.server.logs.lines import full_line, request_line
from vipsrv.errors import Busy, Cancelled, InternalError
from vipsrv.server.ended_requests import AT_ONCE
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.ops import live_view
from vipsrv.server.ops.live import KEPT_ERRORS, KEPT_SECONDS, RECENT_SECONDS, WINDOW_SECONDS, LiveFigures
from vipsrv.server.ops.load import LoadHistory
from vipsrv.server.timeline import Timeline

START = 1_000_000


class Gateway:
    """Live figures with clocks that the test sets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.at(0)
        self.figures = LiveFigures(clock=self.clock, wall_clock=lambda: 5000 + self.clock.now - START)
        self.load = LoadHistory(lambda: {7: 1.0}, lambda: 3, clock=self.clock)

    def at(self, second: float) -> None:
        self.clock.now = START + second

    def end(self, line: RequestLine) -> None:
        self.figures.log(line)

    def columns(self) -> dict[str, Any]:
        return live_view.columns([self.figures.recent()], latest=RECENT_SECONDS)

    def snapshot(self) -> dict[str, Any]:
        figures = self.figures
        gauges = {
            "version": "1",
            "started": 10.0,
            "draining": False,
            "queue": {"light": 2, "heavy": 1, "limit": 100},
            "spool": {"memory": 5, "memory_limit": 10, "disk": 0, "disk_limit": 99},
            "connections": {"open": 3, "limit": 50},
            "process": {"pid": 1, "rss": 100, "cpu": 0.5, "at": 1.0},
            "wanted_workers": 1,
            "workers": [{"pid": 7, "state": "idle", "jobs": 4, "job": None, "rss": 9, "cpu": 0.1, "at": 1.0}],
        }
        value = {
            "counts": figures.recent(),
            "load": self.load.recent(),
            "statuses": figures.statuses(),
            "errors": figures.errors(),
            "gauges": gauges,
        }
        copy: dict[str, Any] = json.loads(json.dumps(value))  # as it comes from another process
        return copy


def timed(milliseconds: float) -> Timeline:
    """A request that waited and was worked on for half of the time each."""
    half = milliseconds / 2000
    return Timeline(1, 1, 1, 1 + half, 1 + 2 * half, 1 + 2 * half)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_each_second_has_its_requests_and_bytes(gateway: Gateway) -> None:
    gateway.end(full_line())
    gateway.at(1.2)
    gateway.end(full_line())
    gateway.end(full_line(lost="the client has disconnected"))
    gateway.end(full_line(error=Busy("full"), outputs=()))
    gateway.end(full_line(error=InternalError("oh"), outputs=()))
    gateway.at(2.1)
    columns = gateway.columns()
    assert columns["second"] == START + 1
    assert columns["ok"] == [0, 0, 0, 1, 1]
    assert columns["refused"] == [0, 0, 0, 0, 2]
    assert columns["failed"] == [0, 0, 0, 0, 1]
    assert columns["bytes_in"] == [0, 0, 0, 2_712_345, 2 * 2_712_345]
    assert columns["bytes_out"] == [0, 0, 0, 1801, 3602]


def test_the_second_that_runs_is_left_out(gateway: Gateway) -> None:
    gateway.end(full_line())
    assert gateway.columns()["ok"] == [0] * RECENT_SECONDS


def test_requests_that_are_counted_together_stay_in_their_seconds(gateway: Gateway) -> None:
    ended = [1, AT_ONCE + 1, 3 * AT_ONCE]
    for second, number in enumerate(ended):
        gateway.at(second + 0.5)
        for _ in range(number):
            gateway.end(full_line())
    gateway.at(len(ended))
    assert gateway.columns()["ok"] == [0, 0, *ended]
    gateway.at(len(ended) + 1)
    gateway.end(full_line())
    assert gateway.columns()["ok"] == [0, *ended, 0]
    assert gateway.figures.statuses() == {"200 ok": sum(ended) + 1}


def test_a_health_check_counts_only_if_it_fails(gateway: Gateway) -> None:
    gateway.end(request_line())
    assert gateway.figures.statuses() == {}
    gateway.end(request_line(error=Busy("full")))
    assert gateway.figures.statuses() == {"429 busy": 1}


def test_percentiles_are_those_of_the_window(gateway: Gateway) -> None:
    gateway.end(full_line(timeline=timed(100), sent=1.1))
    for second in range(1, WINDOW_SECONDS):
        gateway.at(second)
        gateway.end(full_line(timeline=timed(10), sent=1.01))
    gateway.at(WINDOW_SECONDS)
    live = live_view.live([gateway.snapshot()], now=0)
    assert live["stages"]["total"]["p50"] == pytest.approx(10, rel=0.1)
    assert live["stages"]["total"]["p99"] == pytest.approx(100, rel=0.1)
    assert live["stages"]["queue"]["p50"] == pytest.approx(5, rel=0.1)
    assert live["stages"]["process"]["p50"] == pytest.approx(5, rel=0.1)
    assert live["columns"]["p99"][-1] == live["stages"]["total"]["p99"]
    gateway.at(WINDOW_SECONDS + 1)  # the slow one has left the window
    live = live_view.live([gateway.snapshot()], now=0)
    assert live["stages"]["total"]["p99"] == pytest.approx(10, rel=0.1)
    gateway.at(2 * WINDOW_SECONDS)
    live = live_view.live([gateway.snapshot()], now=0)
    assert live["stages"]["total"] is None
    assert live["columns"]["p99"][-1] is None


def test_a_request_that_no_worker_had_has_no_times(gateway: Gateway) -> None:
    gateway.end(full_line(error=Busy("full"), timeline=Timeline(1, 1.1, replied=1.1), sent=1.2))
    gateway.at(1)
    assert live_view.live([gateway.snapshot()], now=0)["stages"]["total"] is None


def test_the_past_has_percentiles_of_the_total_only(gateway: Gateway) -> None:
    for second in range(0, 40, 4):
        gateway.at(second)
        gateway.end(full_line(timeline=timed(10), sent=1.01))
    gateway.at(41)
    history = live_view.columns([gateway.figures.history()])
    assert history["ok"].count(1) == 10
    assert len(history["ok"]) == KEPT_SECONDS
    assert history["p50"][-41:][0] == pytest.approx(10, rel=0.1)
    detailed = [second for second in gateway.figures._seconds if second.process]
    assert 0 < len(detailed) <= WINDOW_SECONDS


def test_what_is_too_old_is_forgotten(gateway: Gateway) -> None:
    for second in range(KEPT_SECONDS + 50):
        gateway.at(second)
        gateway.end(full_line())
    assert len(gateway.figures._seconds) <= KEPT_SECONDS + 1
    gateway.at(3 * KEPT_SECONDS)  # nothing ends for a while
    assert gateway.figures.statuses() == {}


def test_the_last_errors_are_kept_without_their_clients(gateway: Gateway) -> None:
    for number in range(KEPT_ERRORS + 5):
        gateway.end(full_line(error=Busy(f"number {number} \x1b[31m" + 400 * "x"), identity="shop"))
    errors = gateway.figures.errors()
    assert errors["seen"] == KEPT_ERRORS + 5
    assert len(errors["last"]) == KEPT_ERRORS
    newest = errors["last"][0]
    assert newest["message"].startswith(f"number {KEPT_ERRORS + 4} ")
    assert "\x1b" not in newest["message"]
    assert len(newest["message"]) < 400
    assert newest["source"] == "png 400 × 300"
    assert newest["time"] == 5000
    assert "192.0.2.1" not in str(errors)
    assert "shop" not in str(errors)


def test_gateways_together(gateway: Gateway) -> None:
    other = Gateway()
    for one in (gateway, other):
        one.end(full_line(timeline=timed(10), sent=1.01))
    other.at(0.5)
    other.end(full_line(error=Cancelled("gone")))
    gateway.at(1)
    other.at(2.001)  # it is asked a little later
    live = live_view.live([gateway.snapshot(), other.snapshot()], now=1234.5678, silent=["gateway 3"])
    assert live["time"] == 1234.568
    assert live["columns"]["second"] == START
    assert live["columns"]["ok"] == [0, 0, 0, 0, 2]
    assert live["columns"]["refused"] == [0, 0, 0, 0, 1]
    assert live["columns"]["waiting"] == [None, None, None, None, 3]  # the other was first asked in the next
    assert live["statuses"] == [
        {"status": 200, "code": "ok", "outcome": "ok", "count": 2},
        {"status": 499, "code": "cancelled", "outcome": "refused", "count": 1},
    ]
    assert live["queue"] == {"light": 4, "heavy": 2, "limit": 200}
    assert live["connections"] == {"open": 6, "limit": 100}
    assert live["wanted_workers"] == 2
    assert [worker["gateway"] for worker in live["workers"]] == [0, 1]
    assert live["server"]["gateways"] == 2
    assert live["server"]["silent"] == ["gateway 3"]
    assert live["ratio"] == pytest.approx(2_712_345 / 1801)


def test_errors_of_gateways_are_in_the_order_of_time(gateway: Gateway) -> None:
    other = Gateway()
    for second, one in enumerate((gateway, other, gateway)):
        one.at(second)
        one.end(full_line(error=Busy(f"{second}")))
    merged = live_view.errors([gateway.figures.errors(), other.figures.errors()])
    assert merged["seen"] == 3
    assert [error["message"] for error in merged["last"]] == ["2", "1", "0"]


def test_without_a_request_there_is_no_ratio(gateway: Gateway) -> None:
    assert live_view.live([gateway.snapshot()], now=0)["ratio"] is None
