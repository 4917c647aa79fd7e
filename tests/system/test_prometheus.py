"""A real Prometheus scrapes a real server: with the alert rules, and with what the dashboard asks."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.test_observability import PROMETHEUS, RULES, queries, without_variables
from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until
from tests.support.unused_port import unused_port
from vipsrv.client import Client
from vipsrv.errors import CorruptImage

PROGRAM = shutil.which("prometheus")
OFTEN = "200ms"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed")


class Prometheus:
    """A Prometheus that scrapes ``target``, and receives over OTLP."""

    def __init__(self, folder: Path, target: str) -> None:
        assert PROGRAM is not None
        configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": OFTEN, "evaluation_interval": OFTEN}
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        shutil.copy(PROMETHEUS / "vipsrv.rules.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        self.address = f"http://127.0.0.1:{unused_port()}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    PROGRAM,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self.address.removeprefix('http://')}",
                    "--web.enable-otlp-receiver",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def api(self, path: str, **parameters: str) -> Any:
        """The data of a reply of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=30) as reply:  # noqa: S310
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def value(self, expression: str) -> float | None:
        """The only value of an expression, or nothing."""
        found = self.api("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def names(self, job: str) -> set[str]:
        """The names of the samples of vipsrv that a job has."""
        selector = f'{{job="{job}", __name__=~"vipsrv.+"}}'
        found = self.api("query", query=f"group by (__name__) ({selector})")["result"]
        return {one["metric"]["__name__"] for one in found}

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                self.api("status/buildinfo")
            except OSError:
                return False
            return True

        wait_until(is_ready, "Prometheus")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def ops() -> str:
    return f"127.0.0.1:{unused_port()}"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, ops: str) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), ops)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def server(prometheus: Prometheus, ops: str) -> Iterator[RunningServer]:
    """A server that has done some work, and is being scraped."""
    otlp = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.address}/api/v1/otlp/v1/metrics",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_SERVICE_NAME": "over-otlp",
    }
    with (
        RunningServer("--workers", "1", "--ops-listen", ops, "--otel", environment=otlp) as running,
        Client(running.host, running.port) as client,
    ):
        for _ in range(3):
            client.resize(jpeg(), width=16)
        with pytest.raises(CorruptImage):
            client.resize(jpeg()[:200], width=16)
        # Two scrapes, because a rate needs two values.
        scraped = 'min(count_over_time(vipsrv_requests_total{job="vipsrv", kind="resize"}[1h]))'
        wait_until(lambda: (prometheus.value(scraped) or 0) > 1, "scrapes of all requests")
        yield running


def test_the_scrape_is_healthy(prometheus: Prometheus, server: RunningServer) -> None:
    assert server.process.poll() is None
    (target,) = prometheus.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_counters_are_what_the_client_counted(prometheus: Prometheus, server: RunningServer) -> None:
    assert server.process.poll() is None
    assert prometheus.value('sum(vipsrv_requests_total{job="vipsrv", kind="resize", status="200"})') == 3
    assert prometheus.value('sum(vipsrv_requests_total{job="vipsrv", status="422"})') == 1
    assert prometheus.value('sum(vipsrv_request_seconds_count{job="vipsrv", kind="resize"})') == 4


def test_all_rules_are_evaluated_and_none_fires(prometheus: Prometheus, server: RunningServer) -> None:
    assert server.process.poll() is None

    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "evaluation of all rules")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in rules()} == {"ok"}
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []


def test_the_queries_of_the_dashboard_are_answered(prometheus: Prometheus, server: RunningServer) -> None:
    assert server.process.poll() is None
    empty = set()
    for title, expression, _ in queries():
        # All instances, jobs and gateways are selected.
        selected = expression.replace('=~"$job"', '="vipsrv"').replace('=~"$instance"', '=~".+"')
        selected = selected.replace('=~"$instance|"', '=~".*"').replace('=~"$gateway|"', '=~".*"')
        if not prometheus.api("query", query=without_variables(selected))["result"]:
            empty.add(title)
    # What may not have happened here, or needs a TLS listener.
    assert empty <= {
        "Certificate expires",
        "Alerts",
        "Limits hit",
        "Replies that are lost",
        "Workers that have ended",
        "Gateways that have died",
        "Uploads that moved to the disk",
        "Starts",
    }


def test_metrics_over_otlp_have_the_names_and_values_of_the_scrape(
    prometheus: Prometheus, server: RunningServer
) -> None:
    assert server.process.poll() is None
    counted = 'sum(vipsrv_requests_total{job="over-otlp", kind="resize"})'
    wait_until(lambda: prometheus.value(counted) == 4, "export of all requests")
    scraped, received = (prometheus.names(job) for job in ("vipsrv", "over-otlp"))
    assert received == scraped
    assert prometheus.value('sum(vipsrv_request_seconds_count{job="over-otlp", kind="resize"})') == 4


def test_an_alert_fires_when_the_server_is_gone(prometheus: Prometheus, server: RunningServer) -> None:
    server.stop()
    wait_until(
        lambda: any(
            alert["labels"]["alertname"] == "VipsrvDown" for alert in prometheus.api("alerts")["alerts"]
        ),
        "alert",
    )
