"""Reads ``/metrics`` of a server as a scraper does."""

import urllib.request
from collections.abc import Callable

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from tests.support.running_server import RunningServer, wait_until

SECONDS = 60.0


class MetricsPage:
    """The page of a server that was started with ``--ops-listen``."""

    def __init__(self, server: RunningServer) -> None:
        self._url = f"{server.ops.rstrip('/')}/metrics"

    def text(self) -> bytes:
        with urllib.request.urlopen(self._url, timeout=SECONDS) as reply:  # noqa: S310 - http only
            data: bytes = reply.read()
        return data

    def scrape(self) -> "Scrape":
        return Scrape(self.text())

    def wait_for(self, condition: Callable[["Scrape"], bool], what: str) -> "Scrape":
        """Scrape until ``condition`` is true; return what was scraped then."""
        last: list[Scrape] = []

        def is_true() -> bool:
            last[:] = [self.scrape()]
            return condition(last[0])

        wait_until(is_true, what)
        return last[0]


class Scrape:
    """The values of one page, by name and labels."""

    def __init__(self, text: bytes) -> None:
        families: list[Family] = list(text_string_to_metric_families(text.decode()))
        self._samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of all values that have these labels, and maybe others."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums of all values that are not 0, by these labels."""
        found: dict[tuple[str, ...], float] = {}
        for sample in self._samples:
            if sample.name == name and sample.value:
                key = tuple(sample.labels[label] for label in labels)
                found[key] = found.get(key, 0) + sample.value
        return found
