import pytest

from bench.load.server_monitor import ServerMonitor, cpu_between
from bench.measuring.server import Server


def test_cpu_between_two_readings_allows_for_replaced_workers() -> None:
    gateway, workers = cpu_between({1: 5.0, 2: 1.0, 3: 7.0}, {1: 5.5, 2: 3.0, 4: 0.25})
    assert gateway == pytest.approx(0.5)
    assert workers == pytest.approx([2.0, 0.25])


def test_the_memory_of_each_process_is_read() -> None:
    with Server("--workers", "2", "--log-level", "error") as server:
        monitor = ServerMonitor(server)
        assert list(monitor.cpu()) == server.pids
        sample = monitor.memory(1.5, 7)
    assert (sample.seconds, sample.requests, len(sample.worker_bytes)) == (1.5, 7, 2)
    assert sample.total_bytes == sample.gateway_bytes + sum(sample.worker_bytes)
    assert min(sample.gateway_bytes, *sample.worker_bytes) > 1_000_000
