"""The figures of a run for Prometheus, on an HTTP listener of their own while it lasts.

A scrape reads the progress of the run at that moment.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vipsrv.address import Address
from vipsrv.batch.progress import Progress
from vipsrv.batch.rows import OK
from vipsrv.version import __version__

PREFIX = "vipsrv_batch_"


class RunCollector(Collector):
    """Makes the metrics of a run from what ``progress`` returns."""

    def __init__(self, progress: Callable[[], Progress]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its value at this moment."""
        now = self._progress()
        yield InfoMetricFamily(
            f"{PREFIX}run", "The run and the version of vipsrv.", {"run": now.run, "version": __version__}
        )
        images = CounterMetricFamily(
            f"{PREFIX}images",
            "Images whose row is safe, by its code: ok, or why they failed.",
            labels=["code"],
        )
        for code, count in sorted({OK: now.done, **now.failed}.items()):
            images.add_metric([code], count)
        yield images
        yield CounterMetricFamily(f"{PREFIX}source_bytes", "Bytes of the images done.", now.bytes_in)
        yield CounterMetricFamily(f"{PREFIX}result_bytes", "Bytes of their results.", now.bytes_out)
        yield CounterMetricFamily(
            f"{PREFIX}listed_images",
            "Images that the source has listed and the filters let through.",
            now.listed,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}listing_done", "1 once all images are listed; before, more will come.", now.listing_done
        )
        yield CounterMetricFamily(
            f"{PREFIX}skipped_images",
            "Listed images that are done already, or failed in an earlier run.",
            now.skipped,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}in_flight_images", "Images that are being read, resized or written.", now.in_flight
        )
        yield GaugeMetricFamily(
            f"{PREFIX}start_time_seconds", "When the run started, in seconds since the epoch.", now.started
        )
        yield GaugeMetricFamily(
            f"{PREFIX}elapsed_seconds", "Seconds since the run started.", max(0.0, time.time() - now.started)
        )


def parse_listener(text: str) -> Address:
    """Parse the address of the listener, ``HOST:PORT``. Raises ``ValueError``."""
    try:
        address = Address.parse(text)
    except ValueError:
        address = Address()
    if not address.host or address != Address(address.host, address.port):
        raise ValueError(f"--metrics-listen: {text!r} is not HOST:PORT; write for example 127.0.0.1:9465")
    return address


@contextmanager
def serve_metrics(address: Address, progress: Callable[[], Progress]) -> Iterator[Address]:
    """Serve the figures over HTTP within the block; the value is the address, with its port if it was 0.

    Raises ``OSError`` that names the address if nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(RunCollector(progress))
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(address)) from None
    try:
        yield replace(address, port=server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
