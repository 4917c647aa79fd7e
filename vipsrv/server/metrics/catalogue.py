"""Every metric of the server, declared once: name, type, labels, meaning, and what to alert on.

The page ``/metrics``, the table in ``docs/operations/monitoring.md`` and the checks of dashboards and alert
rules are made from ``METRICS``. The names follow Prometheus: base units (seconds, bytes), ``_total`` for
counters, ``_info`` for facts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class MetricType(StrEnum):
    """The types of Prometheus that are used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Merge(StrEnum):
    """How the values that several gateways have for the same labels become one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    ``name`` is as it is exposed, for a histogram without ``_bucket``, ``_sum`` and ``_count``. ``help`` says
    what the value is, ``moves`` when it changes if that needs saying, and ``alert`` what to alert on.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    moves: str = ""
    alert: str = ""
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM

    @property
    def unit(self) -> str:
        """The base unit at the end of the name, or nothing."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes") if stem.endswith(f"_{unit}")), "")

    @property
    def family(self) -> str:
        """The name as OpenMetrics has it: without the suffix of its type."""
        return self.name.removesuffix("_total" if self.type is MetricType.COUNTER else "_info")

    @property
    def exposed(self) -> tuple[str, ...]:
        """The names that its samples have on the page."""
        if self.type is MetricType.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


NONE = "none"
"""The value of a label where there is nothing to name: no format, no identity."""

SECONDS = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds for durations: from the queue of an idle server to the default deadline."""

RATIOS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Upper bounds for compression ratios."""


class Stage(StrEnum):
    """The stages of a request with an image."""

    RECEIVE = "receive"
    QUEUE = "queue"
    PROCESS = "process"
    SEND = "send"


C, G, H, I = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM, MetricType.INFO  # noqa: E741 - in the list

# Requests

REQUESTS = Metric(
    name="vipsrv_requests_total",
    type=C,
    labels=("kind", "status", "protocol", "identity", "format_in", "format_out"),
    help="Requests that have ended.",
    moves="once for each request, when its reply has been sent or is lost. kind is resize, info, hello, "
    "ping, cancel, upload_status, upload (of tus), page (of HTTP), or other; status that of the reply, 499 "
    "for one that its client gave up; protocol as in the log (v1, v2+tls, http and so on), or none if the "
    "client sent no header; identity is token, certificate or none. The formats are those of the image and "
    "of the results, none if there are none, and several for results in different formats",
    alert="share of 5xx among all resize and info requests above 1 % for 5 minutes; share of 429 above 5 %",
)
REQUESTS_LOST = Metric(
    name="vipsrv_requests_lost_total",
    type=C,
    labels=("status",),
    help="Requests whose reply could not be sent completely. They are in vipsrv_requests_total as well.",
    moves="when the client has disconnected, or is disconnected because it reads too slowly",
)
RESULTS = Metric(
    name="vipsrv_results_total",
    type=C,
    labels=("format",),
    help="Results of successful requests; one request may have several.",
)
UPLOAD_BYTES = Metric(
    name="vipsrv_upload_bytes_total",
    type=C,
    labels=("protocol", "format"),
    help="Bytes of the images that arrived completely.",
    moves="at the end of the request; format is none if the image was not recognised or not looked at",
)
RESULT_BYTES = Metric(
    name="vipsrv_result_bytes_total",
    type=C,
    labels=("protocol", "format"),
    help="Bytes of the results that were sent completely.",
)
IN_FLIGHT = Metric(
    name="vipsrv_in_flight_requests",
    type=G,
    help="Requests with an image that were accepted and have no outcome yet.",
)
IN_FLIGHT_BYTES = Metric(
    name="vipsrv_in_flight_bytes",
    type=G,
    help="Bytes of the images of the requests in flight, as announced.",
)
REQUEST_SECONDS = Metric(
    name="vipsrv_request_seconds",
    type=H,
    labels=("kind",),
    buckets=SECONDS,
    help="Seconds from the header of a request whose image arrived completely to the last byte of its reply.",
    moves="at the end of the request, whatever its status. For a lost reply it ends when that was ready",
    alert="95th percentile above what your clients wait for, for 10 minutes",
)
STAGE_SECONDS = Metric(
    name="vipsrv_stage_seconds",
    type=H,
    labels=("stage", "kind"),
    buckets=SECONDS,
    help="Seconds that a request with an image was in a stage.",
    moves="at the end of the request, for each stage that has ended. receive: from the header to the last "
    "byte of the image; queue: until a worker began; process: until the worker was done; send: from the "
    "reply to the last byte that the kernel took",
    alert="95th percentile of queue above 1 s for 10 minutes: more workers, or fewer clients",
)
COMPRESSION_RATIO = Metric(
    name="vipsrv_compression_ratio",
    type=H,
    buckets=RATIOS,
    help="Bytes of an image divided by the bytes of its results.",
    moves="for each successful resize",
)
LIMITS_HIT = Metric(
    name="vipsrv_limits_hit_total",
    type=C,
    labels=("limit",),
    help="How often a limit refused or ended a request or a connection.",
    moves="for a request at its end, for a connection at once. Limits lists the values of limit",
    alert="queue, spool_disk, connections or deadline rising for 10 minutes",
)

# Queue and jobs

QUEUE_LENGTH = Metric(
    name="vipsrv_queue_length",
    type=G,
    labels=("lane",),
    help="Jobs that wait for a worker. lane is light or heavy.",
    alert="above 80 % of vipsrv_queue_limit for 5 minutes",
)
QUEUE_LIMIT = Metric(
    name="vipsrv_queue_limit",
    type=G,
    help="Jobs that may wait in each lane (--queue). Clients that have none waiting may double it.",
)
JOBS_RUNNING = Metric(
    name="vipsrv_jobs_running",
    type=G,
    labels=("lane",),
    help="Jobs that a worker has. lane is light or heavy.",
)
JOBS = Metric(
    name="vipsrv_jobs_total",
    type=C,
    help="Jobs that workers have answered, the server's own included. One that is given back as heavy counts "
    "twice.",
)
HEAVY_JOBS = Metric(
    name="vipsrv_heavy_jobs_total",
    type=C,
    help="Jobs that a worker has found to be heavy and given back.",
)
DECODE_MEMORY = Metric(
    name="vipsrv_decode_memory_bytes",
    type=G,
    help="Bytes of memory that the running heavy jobs were allowed.",
)
DECODE_MEMORY_LIMIT = Metric(
    name="vipsrv_decode_memory_limit_bytes",
    type=G,
    help="Bytes of memory that all heavy jobs may take together (--decode-memory).",
)

# Spool

SPOOL = Metric(
    name="vipsrv_spool_bytes",
    type=G,
    labels=("store",),
    help="Bytes of uploads and results in the spool. store is memory or disk.",
    alert="disk above 80 % of its limit for 5 minutes",
)
SPOOL_LIMIT = Metric(
    name="vipsrv_spool_limit_bytes",
    type=G,
    labels=("store",),
    help="Bytes that the spool may hold (--spool-memory, --spool-disk).",
)
SPOOL_FILES = Metric(
    name="vipsrv_spool_files",
    type=G,
    help="Files in the spool folder.",
)

# Uploads that can be resumed

UPLOADS_WAITING = Metric(
    name="vipsrv_uploads_waiting",
    type=G,
    help="Uploads that are kept and that nobody uses at the moment, complete ones included.",
)
UPLOADS_WAITING_BYTES = Metric(
    name="vipsrv_uploads_waiting_bytes",
    type=G,
    labels=("store",),
    help="Bytes of these uploads (--upload-memory, --upload-disk). store is memory or disk. They are in "
    "vipsrv_spool_bytes as well.",
)
UPLOADS_RESUMED = Metric(
    name="vipsrv_uploads_resumed_total",
    type=C,
    help="Requests that went on with an upload of which bytes were held.",
)
UPLOADS_SAVED_BYTES = Metric(
    name="vipsrv_uploads_saved_bytes_total",
    type=C,
    help="Bytes that these requests did not have to send again.",
)
UPLOADS_REMOVED = Metric(
    name="vipsrv_uploads_removed_total",
    type=C,
    labels=("reason",),
    help="Uploads that were removed although their client did not say so. reason is expired (--upload-ttl), "
    "or evicted if the room was needed.",
    alert="evicted rises for an hour: raise --upload-disk, or lower --upload-ttl",
)

# Connections

CONNECTIONS = Metric(
    name="vipsrv_connections",
    type=G,
    labels=("state",),
    help="Open connections. state is active, idle, or excess for one that has no place and is being refused.",
    alert="all states together above 80 % of vipsrv_connections_limit for 5 minutes",
)
CONNECTIONS_LIMIT = Metric(
    name="vipsrv_connections_limit",
    type=G,
    help="Connections that may be open (--connections, or less if the limit of open files holds fewer).",
)
CONNECTIONS_OPENED = Metric(
    name="vipsrv_connections_opened_total",
    type=C,
    help="Connections that clients have opened, refused ones included.",
)
CONNECTIONS_REFUSED = Metric(
    name="vipsrv_connections_refused_total",
    type=C,
    labels=("reason",),
    help="Connections without a place. reason is busy if they were told so, dropped if they were too many.",
    alert="any rise for 5 minutes",
)
CONNECTIONS_DISPLACED = Metric(
    name="vipsrv_connections_displaced_total",
    type=C,
    help="Idle connections that were closed because another client needed the place.",
)
TLS_FAILURES = Metric(
    name="vipsrv_tls_handshake_failures_total",
    type=C,
    help="TLS handshakes that failed. The log says why.",
    alert="a sudden rise: a certificate that clients refuse",
)
CERTIFICATE_EXPIRY = Metric(
    name="vipsrv_tls_certificate_expiry_timestamp_seconds",
    type=G,
    merge=Merge.MIN,
    help="When the server's certificate expires, in seconds since the epoch; only with a TLS listener.",
    alert="less than 14 days away",
)

# Workers

WORKERS = Metric(
    name="vipsrv_workers",
    type=G,
    labels=("state",),
    help="Worker processes. state is starting, idle or busy.",
    alert="starting, idle and busy together below vipsrv_workers_wanted for 2 minutes",
)
WORKERS_WANTED = Metric(
    name="vipsrv_workers_wanted",
    type=G,
    help="Worker processes that there should be (--workers).",
)
WORKER_RESTARTS = Metric(
    name="vipsrv_worker_restarts_total",
    type=C,
    labels=("reason",),
    help="Workers that have ended, by reason; each is replaced.",
    moves="not when the server stops. Workers lists the reasons",
    alert="crashed, stuck, misbehaved, start_failed or start_timeout rising for 10 minutes",
)
WORKER_MEMORY_MAX = Metric(
    name="vipsrv_worker_resident_memory_max_bytes",
    type=G,
    merge=Merge.MAX,
    help="Resident memory of the worker that has most.",
)
SANDBOX_LAYER = Metric(
    name="vipsrv_sandbox_layer_info",
    type=I,
    labels=("layer",),
    merge=Merge.MAX,
    help="A layer of the sandbox that confines the workers.",
)
SANDBOX_MISSING = Metric(
    name="vipsrv_sandbox_missing_layers",
    type=G,
    merge=Merge.MAX,
    help="Essential layers of the sandbox that this system does not offer.",
    alert="above 0",
)

# Processes

RESIDENT_MEMORY = Metric(
    name="vipsrv_process_resident_memory_bytes",
    type=G,
    labels=("process", "gateway"),
    help="Resident memory. process is gateway, worker (all workers of the gateway together) or supervisor.",
    moves="at most once a second, when /proc is read. Memory that processes share counts for each of them",
    alert="all processes together above 90 % of the memory that the container may use",
)
CPU_SECONDS = Metric(
    name="vipsrv_process_cpu_seconds_total",
    type=C,
    labels=("process", "gateway"),
    help="CPU seconds, user and system. Those of workers include the ones that have ended.",
    moves="at most once a second, when /proc is read",
    alert="the rate of a gateway above 0.9 for 10 minutes: it is the bottleneck; see Several gateways",
)
OPEN_FILES = Metric(
    name="vipsrv_process_open_files",
    type=G,
    labels=("gateway",),
    help="Open file descriptors of a gateway.",
    alert="above 90 % of vipsrv_process_open_files_limit",
)
OPEN_FILES_LIMIT = Metric(
    name="vipsrv_process_open_files_limit",
    type=G,
    labels=("gateway",),
    help="File descriptors that a gateway may have.",
)
START_TIME = Metric(
    name="vipsrv_process_start_time_seconds",
    type=G,
    labels=("process", "gateway"),
    help="When a gateway or the supervisor started, in seconds since the epoch.",
    alert="changes more than twice in 15 minutes",
)

# Server

BUILD = Metric(
    name="vipsrv_build_info",
    type=I,
    labels=("version", "python", "libvips"),
    merge=Merge.MAX,
    help="Versions of the server, of Python and of libvips.",
)
READY = Metric(
    name="vipsrv_ready",
    type=G,
    merge=Merge.MAX,
    help="1 if a worker is ready and the server accepts requests, otherwise 0. It sends no image, as /readyz "
    "does.",
    alert="0 for 1 minute",
)
DRAINING = Metric(
    name="vipsrv_draining",
    type=G,
    merge=Merge.MAX,
    help="1 while the server finishes its requests before it stops, otherwise 0.",
)
GATEWAYS = Metric(
    name="vipsrv_gateways",
    type=G,
    help="Gateway processes whose figures are in this page.",
    alert="below vipsrv_gateways_wanted for 2 minutes",
)
GATEWAYS_WANTED = Metric(
    name="vipsrv_gateways_wanted",
    type=G,
    merge=Merge.MAX,
    help="Gateway processes that there should be (--gateways).",
)
GATEWAY_RESTARTS = Metric(
    name="vipsrv_gateway_restarts_total",
    type=C,
    help="Gateways that have ended and were replaced.",
    alert="any",
)
LOG_DROPPED = Metric(
    name="vipsrv_log_lines_dropped_total",
    type=C,
    help="Lines of the log that were dropped because nothing read them or they could not be written.",
    alert="any for 10 minutes",
)
LOG_LEFT_OUT = Metric(
    name="vipsrv_log_lines_left_out_total",
    type=C,
    help="Lines of the log that were left out because there were too many of one kind.",
)
DEADLINE = Metric(
    name="vipsrv_deadline_seconds",
    type=G,
    merge=Merge.MAX,
    help="Seconds from the end of an upload to its reply that a request may take (--deadline).",
)
MAX_UPLOAD = Metric(
    name="vipsrv_max_upload_bytes",
    type=G,
    merge=Merge.MAX,
    help="Bytes of the largest image that is accepted (--max-upload).",
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        REQUESTS,
        REQUESTS_LOST,
        RESULTS,
        UPLOAD_BYTES,
        RESULT_BYTES,
        IN_FLIGHT,
        IN_FLIGHT_BYTES,
        REQUEST_SECONDS,
        STAGE_SECONDS,
        COMPRESSION_RATIO,
        LIMITS_HIT,
        QUEUE_LENGTH,
        QUEUE_LIMIT,
        JOBS_RUNNING,
        JOBS,
        HEAVY_JOBS,
        DECODE_MEMORY,
        DECODE_MEMORY_LIMIT,
        SPOOL,
        SPOOL_LIMIT,
        SPOOL_FILES,
        UPLOADS_WAITING,
        UPLOADS_WAITING_BYTES,
        UPLOADS_RESUMED,
        UPLOADS_SAVED_BYTES,
        UPLOADS_REMOVED,
        CONNECTIONS,
        CONNECTIONS_LIMIT,
        CONNECTIONS_OPENED,
        CONNECTIONS_REFUSED,
        CONNECTIONS_DISPLACED,
        TLS_FAILURES,
        CERTIFICATE_EXPIRY,
        WORKERS,
        WORKERS_WANTED,
        WORKER_RESTARTS,
        WORKER_MEMORY_MAX,
        SANDBOX_LAYER,
        SANDBOX_MISSING,
        RESIDENT_MEMORY,
        CPU_SECONDS,
        OPEN_FILES,
        OPEN_FILES_LIMIT,
        START_TIME,
        BUILD,
        READY,
        DRAINING,
        GATEWAYS,
        GATEWAYS_WANTED,
        GATEWAY_RESTARTS,
        LOG_DROPPED,
        LOG_LEFT_OUT,
        DEADLINE,
        MAX_UPLOAD,
    )
}
"""All metrics by name, in the order of the page."""


def exposed_names(metrics: Iterable[Metric] = METRICS.values()) -> frozenset[str]:
    """Return the names of all samples on the page: what a dashboard or an alert rule may use."""
    return frozenset(name for metric in metrics for name in metric.exposed)
