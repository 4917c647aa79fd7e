"""The OpenTelemetry collector receives what a real server exports."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.images import jpeg
from tests.support.running_server import RunningServer, wait_until
from tests.support.unused_port import unused_port
from vipsrv.client import Client

PROGRAM = next(filter(None, map(shutil.which, ("otelcol", "otelcol-contrib"))), None)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no otelcol with the file exporter is installed")


class Collector:
    """A collector that writes all that it receives to a file."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        where = f"127.0.0.1:{unused_port()}"
        self.endpoint = f"http://{where}"
        self._received = folder / "received.json"
        self._log = folder / "log"
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        configuration = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": where}}}},
            "exporters": {"file": {"path": str(self._received), "flush_interval": "50ms"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": pipeline, "metrics": pipeline},
            },
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
        with self._log.open("wb") as log:
            command = [PROGRAM, "--config", f"file:{folder / 'config.yaml'}"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self._log.read_text()
            return "Everything is ready" in self._log.read_text()

        wait_until(is_ready, "collector")

    def received(self, what: str) -> list[dict[str, Any]]:
        """All ``resourceSpans`` or ``resourceMetrics`` so far."""
        lines = self._received.read_text().split("\n")[:-1]  # the last one may be written in part
        return [one for line in lines for one in json.loads(line).get(what, [])]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    running = Collector(tmp_path)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def test_a_collector_receives_traces_and_metrics(collector: Collector) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    with RunningServer("--workers", "1", "--otel", environment=environment) as server:
        with Client(server.host, server.port) as client:
            client.resize(jpeg(), width=16, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert server.stop() == 0
    wait_until(lambda: collector.received("resourceSpans") != [], "spans")
    (span,) = [
        span
        for one in collector.received("resourceSpans")
        for scope in one["scopeSpans"]
        for span in scope["spans"]
    ]
    assert (span["name"], span["traceId"], span["parentSpanId"]) == ("resize", TRACE, PARENT)
    assert [event["name"] for event in span["events"]] == ["received", "queued", "started", "ended", "sent"]
    wait_until(lambda: collector.received("resourceMetrics") != [], "metrics")
    metrics = {
        metric["name"]: metric
        for one in collector.received("resourceMetrics")
        for scope in one["scopeMetrics"]
        for metric in scope["metrics"]
    }
    (point,) = metrics["vipsrv_request_seconds"]["histogram"]["dataPoints"]
    assert point["count"] == "1"
