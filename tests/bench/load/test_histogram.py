import pytest

from bench.load.histogram import Latencies


def of(*seconds: float) -> Latencies:
    latencies = Latencies()
    for one in seconds:
        latencies.record(one)
    return latencies


def test_percentiles_of_known_latencies() -> None:
    summary = of(*(milliseconds / 1e3 for milliseconds in range(1, 1001))).summary()
    assert summary is not None
    assert summary.count == 1000
    # Three significant figures.
    assert summary.p50_ms == pytest.approx(500, rel=2e-3)
    assert summary.p90_ms == pytest.approx(900, rel=2e-3)
    assert summary.p99_ms == pytest.approx(990, rel=2e-3)
    assert summary.p999_ms == pytest.approx(999, rel=2e-3)
    assert summary.max_ms == pytest.approx(1000, rel=2e-3)
    assert summary.mean_ms == pytest.approx(500.5, rel=2e-3)


def test_nothing_recorded_has_no_percentiles() -> None:
    assert Latencies().summary() is None


def test_a_latency_beyond_the_range_counts_as_its_limit() -> None:
    summary = of(-1.0, 0.0, 7200.0).summary()
    assert summary is not None
    assert summary.count == 3
    assert summary.p50_ms == pytest.approx(0.001)
    assert summary.max_ms == pytest.approx(3_600_000, rel=2e-3)


def test_histograms_of_several_processes_add_up() -> None:
    together = Latencies().add(of(0.010, 0.020).encode()).add(of(0.030).encode()).add(Latencies().encode())
    summary = together.summary()
    assert summary is not None
    assert summary.count == 3
    assert summary.p50_ms == pytest.approx(20, rel=2e-3)
    assert summary.max_ms == pytest.approx(30, rel=2e-3)


def test_the_histogram_of_a_summary_can_be_decoded() -> None:
    summary = of(0.010, 0.020, 0.030).summary()
    assert summary is not None
    assert Latencies().add(summary.histogram).summary() == summary


def test_requests_missed_during_a_wait_are_counted() -> None:
    # 99 requests of 10 ms, one every 10 ms, and then a server that stands still for a second: 99 more would
    # have been sent meanwhile, which would have waited for 990, 980, … 10 ms.
    omitted, corrected = Latencies(), Latencies()
    for seconds in [0.010] * 99 + [1.0]:
        omitted.record(seconds)
        corrected.record_corrected(seconds, 0.010)
    assert len(omitted) == 100
    assert len(corrected) == 199
    assert omitted.percentile(90) == pytest.approx(10, rel=2e-3)
    assert corrected.percentile(90) == pytest.approx(800, rel=0.02)
    assert corrected.percentile(50) == pytest.approx(10, rel=2e-3)
