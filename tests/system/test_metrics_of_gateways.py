"""What ``/metrics`` says of a server with several gateways, while these end and are replaced."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.support.images import jpeg
from tests.support.metrics_page import MetricsPage, Scrape
from tests.support.promtool import check_metrics
from tests.support.running_server import RunningServer, wait_until
from tests.system.test_gateways import events, gateway_pids, pid_of
from vipsrv.client import Client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several gateways need Linux")

JPEG = jpeg()


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with RunningServer("--gateways", "2", "--workers", "2", "--ops-listen", "127.0.0.1:0") as one:
        yield one


def resized(found: Scrape) -> float:
    return found.value("vipsrv_requests_total", kind="resize")


def resize_at_both(server: RunningServer) -> int:
    """Send requests over new connections until both gateways have had some; return how many it were."""
    for done in range(1, 100):
        with Client(server.host, server.port) as client:
            client.resize(JPEG, width=20, height=20)
        if done >= 10 and {line["gateway"] for line in events(server, "request")} == {1, 2}:
            return done
    raise AssertionError("all connections came to one gateway")


def test_the_page_has_the_sums_of_all_gateways(server: RunningServer) -> None:
    page = MetricsPage(server)
    done = resize_at_both(server)
    found = page.wait_for(lambda found: resized(found) == done, "all requests")
    assert found.value("vipsrv_gateways") == found.value("vipsrv_gateways_wanted") == 2
    assert found.value("vipsrv_workers", state="idle") == 2
    assert found.value("vipsrv_request_seconds_count", kind="resize") == done
    assert found.value("vipsrv_queue_limit") == 1024
    processes = found.by("vipsrv_process_resident_memory_bytes", "process", "gateway")
    assert set(processes) == {
        ("gateway", "1"),
        ("gateway", "2"),
        ("worker", "1"),
        ("worker", "2"),
        ("supervisor", ""),
    }
    check_metrics(page.text())


@pytest.mark.parametrize("killed", [1, 2], ids=["that has the page", "other"])
def test_no_counter_goes_back_when_a_gateway_is_killed(server: RunningServer, killed: int) -> None:
    page = MetricsPage(server)
    done = resize_at_both(server)
    page.wait_for(lambda found: resized(found) == done, "all requests")

    os.kill(pid_of(server, killed), signal.SIGKILL)
    server.wait_for_log(f"gateway {killed} serves again")
    found = page.wait_for(lambda found: found.value("vipsrv_gateways") == 2, "both gateways")
    assert resized(found) == done
    assert found.value("vipsrv_request_seconds_count", kind="resize") == done
    assert found.value("vipsrv_gateway_restarts_total") == 1


def test_what_a_gateway_counts_while_it_ends_as_planned_is_kept(server: RunningServer) -> None:
    page = MetricsPage(server)
    done = resize_at_both(server)  # and no scrape after these
    os.kill(pid_of(server, 2), signal.SIGTERM)
    server.wait_for_log("gateway 2 serves again")
    found = page.wait_for(lambda found: found.value("vipsrv_gateways") == 2, "both gateways")
    assert resized(found) == done
    wait_until(lambda: len(gateway_pids(server)) == 2, "two gateways")
