"""The figures of a batch as Prometheus gets them."""

import socket
import urllib.request
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.promtool import check_metrics
from vipsrv.address import Address
from vipsrv.batch.metrics import parse_listener, serve_metrics
from vipsrv.batch.progress import Progress

FREE_PORT = Address("127.0.0.1", 0)

PROGRESS = Progress(
    run="20260101T000000Z-abcdef",
    started=1.5,
    listed=30,
    listing_done=True,
    skipped=4,
    done=20,
    failed={"corrupt_image": 2, "source_missing": 1},
    bytes_in=5_000,
    bytes_out=400,
    in_flight=3,
)


def scrape(address: Address) -> bytes:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as reply:
        page: bytes = reply.read()
    return page


def values(page: bytes) -> dict[tuple[str, ...], float]:
    """The value by the name of its sample and its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_a_scrape_shows_the_progress_of_that_moment() -> None:
    now = PROGRESS
    with serve_metrics(FREE_PORT, lambda: now) as address:
        found = values(scrape(address))
        elapsed = found.pop(("vipsrv_batch_elapsed_seconds",))
        assert elapsed > 1e9
        assert {name: value for name, value in found.items() if name[0] != "vipsrv_batch_run_info"} == {
            ("vipsrv_batch_images_total", "ok"): 20,
            ("vipsrv_batch_images_total", "corrupt_image"): 2,
            ("vipsrv_batch_images_total", "source_missing"): 1,
            ("vipsrv_batch_source_bytes_total",): 5_000,
            ("vipsrv_batch_result_bytes_total",): 400,
            ("vipsrv_batch_listed_images_total",): 30,
            ("vipsrv_batch_listing_done",): 1,
            ("vipsrv_batch_skipped_images_total",): 4,
            ("vipsrv_batch_in_flight_images",): 3,
            ("vipsrv_batch_start_time_seconds",): 1.5,
        }
        now = Progress(run="r", started=0.0, done=21)
        assert values(scrape(address))["vipsrv_batch_images_total", "ok"] == 21


def test_promtool_finds_nothing_wrong() -> None:
    with serve_metrics(FREE_PORT, lambda: PROGRESS) as address:
        check_metrics(scrape(address))


def test_nothing_listens_after_the_block() -> None:
    with serve_metrics(FREE_PORT, lambda: PROGRESS) as address:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address.host, address.port), timeout=60)


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match=f"in use: '{address}'"), serve_metrics(address, lambda: PROGRESS):
            raise AssertionError


@pytest.mark.parametrize("text", ["9465", "127.0.0.1:", "unix:/tmp/x", "http://127.0.0.1:1", "a:b:c"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--metrics-listen: .* is not HOST:PORT"):
        parse_listener(text)
