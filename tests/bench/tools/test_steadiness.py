"""How ``bench.tools.steadiness`` judges its runs."""

from typing import Any

import pytest

from bench.load.record import IdleStats, MemorySample, Run, ServerStats
from bench.tools.steadiness import FIRST, LAST, Ratio, beside_idle, memory, tail
from tests.bench.report.documents import MEGA, run


@pytest.mark.parametrize(
    ("value", "least", "kept"),
    [(0.95, True, True), (0.94, True, False), (0.95, False, True), (1, False, False)],
)
def test_a_ratio_is_held_against_its_limit(value: float, *, least: bool, kept: bool) -> None:
    ratio = Ratio("x", value, 0.95, least=least)
    assert ratio.kept is kept
    assert str(ratio).endswith("MISSED") is not kept


def test_the_throughput_beside_idle_connections_is_the_median_of_rounds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates = {0: iter([100.0, 100.0, 200.0]), 50: iter([98.0, 50.0, 198.0])}
    order = []

    def measure(_: object, *, duration: float, idle: int | None = None) -> Run:
        if idle is None:  # the warm-up
            return run()
        assert duration == 2.0
        order.append(idle)
        stats = IdleStats(asked=idle, open_at_end=idle) if idle else None
        cpu = ServerStats(arguments=[], gateway_cpu_ms=1, worker_cpu_ms=[1.5 if idle else 1], memory=[])
        return run(replies_per_second=next(rates[idle]), idle=stats, server=cpu)

    assert beside_idle(measure, 3, 2.0, 50).value == pytest.approx(0.98)
    assert order == [50, 0, 0, 50, 50, 0]
    assert "over that without: 1.250" in capsys.readouterr().out


def test_idle_connections_that_the_server_closes_are_no_measurement() -> None:
    def measure(_: object, **further: Any) -> Run:
        return run(idle=IdleStats(asked=50, open_at_end=49) if further.get("idle") else None)

    with pytest.raises(SystemExit, match="closed idle connections"):
        beside_idle(measure, 1, 2.0, 50)


def test_the_tail_is_the_median_of_the_ratios() -> None:
    ratio = tail(lambda *_, **__: run(), 3, 2.0, 0)
    assert ratio.value == pytest.approx(149 / 99, rel=0.02)
    assert ratio.kept


def test_memory_is_compared_at_rest_after_few_and_many_requests() -> None:
    counts = []

    def measure(_: object, *, count: int, **__: Any) -> Run:
        counts.append(count)
        samples = [
            MemorySample(seconds=at, requests=count, gateway_bytes=size * MEGA, worker_bytes=[50 * MEGA])
            for at, size in ((1.0, 500), (2.0, 50 + 20 * len(counts)))
        ]
        return run(server=ServerStats(arguments=[], gateway_cpu_ms=1, worker_cpu_ms=[1], memory=samples))

    ratio = memory(measure)
    assert counts == [FIRST, LAST - FIRST]
    assert ratio.value == pytest.approx(140 / 120)
    assert not ratio.kept
