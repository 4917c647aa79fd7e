"""A receiver of OTLP over HTTP, as a collector has: decodes what is exported, and counts it."""

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.support.running_server import wait_until

STALLED = 5.0


class OtlpReceiver:
    """Receives at ``endpoint`` within a ``with`` block.

    It answers with ``status``. While ``may_answer`` is not set, exporters have to wait.
    """

    def __init__(self) -> None:
        self.resource_spans: list[ResourceSpans] = []
        self.resource_metrics: list[ResourceMetrics] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [span for one in self.resource_spans for scope in one.scope_spans for span in scope.spans]

    def wait_for_spans(self, number: int) -> list[Span]:
        wait_until(lambda: len(self.spans) >= number, f"{number} spans")
        return self.spans

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests += 1
                receiver.may_answer.wait(STALLED)
                if receiver.status == 200:
                    receiver.headers.append(dict(self.headers.items()))
                    if self.path == "/v1/traces":
                        receiver.resource_spans += ExportTraceServiceRequest.FromString(body).resource_spans
                    elif self.path == "/v1/metrics":
                        metrics = ExportMetricsServiceRequest.FromString(body).resource_metrics
                        receiver.resource_metrics += metrics
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
                """Say nothing."""

        return Handler


def values_of(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Return attributes as a dictionary."""
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
