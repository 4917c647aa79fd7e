"""The file that ``python -m bench.load --json FILE`` writes: one ``Document``.

``Document.version`` increases when a field changes its meaning or is removed; a reader must accept more
fields. Times are seconds or, where the name says so, milliseconds; sizes are bytes; a MB is 1,000,000 bytes.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

KIND: Literal["vipsrv-bench-load"] = "vipsrv-bench-load"
VERSION: Literal[2] = 2

FROM_INTENDED_START = "from intended start"
CORRECTED = "corrected by the expected interval"
NOT_CORRECTED = "not corrected"


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Latencies of the requests that were answered with a result."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    histogram: str
    """All of them, in microseconds: HdrHistogram V2, compressed, in base64."""


@dataclass(frozen=True, kw_only=True)
class ImageStats:
    """One image of the mix."""

    name: str
    bytes: int
    weight: float
    answered: int
    """Requests for the image that were answered with a result."""
    failed: int
    mean_ms: float | None
    mean_result_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class MemorySample:
    """Anonymous memory (RssAnon and RssShmem) of the server's processes at one moment."""

    seconds: float
    """Since the first request of the run."""
    requests: int
    """Replies since the first request of the run, warm-up and errors included."""
    gateway_bytes: int
    worker_bytes: list[int]

    @property
    def total_bytes(self) -> int:
        """All processes together."""
        return self.gateway_bytes + sum(self.worker_bytes)


@dataclass(frozen=True, kw_only=True)
class ServerStats:
    """The server that the load generator started: CPU time in the measured time, memory in the whole run."""

    arguments: list[str]
    """The arguments of ``vipsrv serve``."""
    gateway_cpu_ms: float
    """CPU milliseconds per reply of the gateway."""
    worker_cpu_ms: list[float]
    """CPU milliseconds per reply of each worker, the busiest first."""
    memory: list[MemorySample]

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per reply of all processes together."""
        return self.gateway_cpu_ms + sum(self.worker_cpu_ms)


@dataclass(frozen=True, kw_only=True)
class GeneratorStats:
    """The load generator itself, which shows whether it limited the results."""

    processes: int
    cpu_ms: float
    """CPU milliseconds per reply, all its processes together."""
    busiest: float
    """CPU time of its busiest process over the measured time, 0 to 1."""
    saturated: bool
    """Whether ``busiest`` or ``late_p99_ms`` is so high that the generator may have limited the results."""
    late_p99_ms: float | None
    """99th percentile of how late it sent requests on idle lanes."""


@dataclass(frozen=True, kw_only=True)
class CoresStats:
    """What else used the cores in the measured time, as shares of their time, 0 to 1.

    The cores are those that the generator may use; the server that it started shares them.
    """

    cores: int
    others: float | None
    """The share of processes that belong neither to the server nor to the generator; ``None`` for a server
    that was already running, whose share is unknown."""
    stolen: float
    """The share that the hypervisor gave to other machines."""


@dataclass(frozen=True, kw_only=True)
class IdleStats:
    """The connections that were held open beside the load and sent nothing."""

    asked: int
    open_at_end: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """One load on one server."""

    loop: Literal["open", "closed"]
    """Open: requests are sent by the clock. Closed: they are sent as soon as a connection is free."""
    rate: float | None
    protocol: Literal[1, 2]
    connections: int
    pipeline: int
    """The most requests in flight on a connection."""
    width: int
    height: int
    idle: IdleStats | None
    warmup_seconds: float
    """The time before ``seconds``; its requests count only in ``MemorySample.requests``."""
    seconds: float
    """The measured time: the given duration, or up to the reply to the last of ``count`` requests."""
    replies_per_second: float
    """Results within ``seconds``, over ``seconds``."""
    sent_mb_per_second: float
    """Images of the requests that were answered within ``seconds``, in MB."""
    received_mb_per_second: float
    answered: int
    """Requests due in the measured time that were answered with a result."""
    errors: dict[str, int]
    """The other requests due in the measured time, by the code of the protocol's error reply, or
    ``connection_lost`` (closed before the reply was complete), ``no_reply`` (no reply arrived),
    ``not_a_jpeg`` (the result is not a JPEG) and ``protocol`` (the reply broke the protocol)."""
    coordinated_omission: str
    """``from intended start``: open loop, latency counts from when the request was due.
    ``corrected by the expected interval``: closed loop, missed requests are counted, too.
    ``not corrected``: closed loop, latency counts from when the request was sent."""
    expected_interval_ms: float | None
    latency: Percentiles | None
    service: Percentiles | None
    """As ``latency``, but from when the request was actually sent, and never corrected."""
    images: list[ImageStats]
    server: ServerStats | None
    """``None`` for a server that was already running."""
    generator: GeneratorStats
    cores: CoresStats


@dataclass(frozen=True, kw_only=True)
class Document:
    """The whole file, with one run for each ``--rate``, or one run."""

    kind: Literal["vipsrv-bench-load"] = KIND
    version: Literal[2] = VERSION
    started: str
    """UTC, ISO 8601."""
    command: list[str]
    machine: dict[str, str | int]
    """The fields of ``bench.measuring.machine.Machine``."""
    commit: str | None
    """The commit of this repository, with ``+`` if files were changed; ``None`` outside a repository."""
    runs: list[Run]


_ADAPTER = TypeAdapter(Document)


def to_json(document: Document) -> bytes:
    """Encode a document as the bytes of a file."""
    return _ADAPTER.dump_json(document, indent=1) + b"\n"


def from_json(data: bytes | str) -> Document:
    """Decode a file's bytes. Raises ``ValueError``, which names what is missing or has a wrong type."""
    return _ADAPTER.validate_json(data)
