"""What ``python -m bench.load --json FILE`` writes: one ``Document``, with the fields of these classes.

``Document.version`` goes up when a field changes its meaning or goes away; a reader may meet further fields.
Times are seconds or, where the name says so, milliseconds; sizes are bytes; a MB is 1,000,000 bytes.
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
    """Latencies of the requests that were answered with an image."""

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
    """Requests for it that were answered with an image."""
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
    """The server that the load generator started: CPU in the measured time, memory in all of the run."""

    arguments: list[str]
    """Those of ``vipsrv serve``."""
    gateway_cpu_ms: float
    """CPU milliseconds per reply, as the next."""
    worker_cpu_ms: list[float]
    """One for each worker, the busiest first."""
    memory: list[MemorySample]

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per reply of all processes together."""
        return self.gateway_cpu_ms + sum(self.worker_cpu_ms)


@dataclass(frozen=True, kw_only=True)
class GeneratorStats:
    """The load generator itself: whether it could have been what was measured."""

    processes: int
    cpu_ms: float
    """CPU milliseconds per reply, all its processes together."""
    busiest: float
    """CPU time of its busiest process over the measured time, 0 to 1."""
    saturated: bool
    """Whether that, or the next, is so much that the figures may be the generator's and not the server's."""
    late_p99_ms: float | None
    """How late it sent what it could have sent, in 99 of 100 cases at most."""


@dataclass(frozen=True, kw_only=True)
class CoresStats:
    """What else the cores did in the measured time: shares of all their time, 0 to 1.

    The cores are those that the generator might use, which its own server shares.
    """

    cores: int
    others: float | None
    """Taken by processes that are neither the server's nor the generator's; ``None`` for a server that was
    already running, whose share is not known."""
    stolen: float
    """Given to other machines by the hypervisor."""


@dataclass(frozen=True, kw_only=True)
class IdleStats:
    """The connections that were held beside the load and sent nothing."""

    asked: int
    open_at_end: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """One load on one server."""

    loop: Literal["open", "closed"]
    """Open: sent by the clock, ``rate`` a second. Closed: sent as soon as a connection is free."""
    rate: float | None
    protocol: Literal[1, 2]
    connections: int
    pipeline: int
    """Requests in flight on a connection at most."""
    width: int
    height: int
    idle: IdleStats | None
    warmup_seconds: float
    """Sent before ``seconds``; counted in nothing but ``MemorySample.requests``."""
    seconds: float
    """The measured time: as asked for, or up to the last of the requests asked for."""
    replies_per_second: float
    """Images that came back within ``seconds``, over ``seconds``."""
    sent_mb_per_second: float
    """Images sent by the requests that were answered within ``seconds``, in MB."""
    received_mb_per_second: float
    answered: int
    """Requests due in the measured time that were answered with an image."""
    errors: dict[str, int]
    """Those that were not: by the code of the protocol's error reply, or ``connection_lost`` (closed before
    the reply was complete), ``no_reply`` (nothing came any more), ``not_a_jpeg`` and ``protocol`` (what came
    was not what was to come)."""
    coordinated_omission: str
    """``from intended start``: open loop, latency counts from when the request was due.
    ``corrected by the expected interval``: closed loop, missed requests are counted, too.
    ``not corrected``: closed loop, latency counts from when the request was sent."""
    expected_interval_ms: float | None
    latency: Percentiles | None
    service: Percentiles | None
    """As ``latency``, but from when the request was really sent, and never corrected."""
    images: list[ImageStats]
    server: ServerStats | None
    """``None`` for a server that was already running."""
    generator: GeneratorStats
    cores: CoresStats


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole file: one run for each ``--rate``, or one."""

    kind: Literal["vipsrv-bench-load"] = KIND
    version: Literal[2] = VERSION
    started: str
    """UTC, ISO 8601."""
    command: list[str]
    machine: dict[str, str | int]
    """What it ran on: the fields of ``bench.measuring.machine.Machine``."""
    commit: str | None
    """Of the repository of this code, with ``+`` where files were changed; ``None`` outside of one."""
    runs: list[Run]


_ADAPTER = TypeAdapter(Document)


def to_json(document: Document) -> bytes:
    """The file's bytes."""
    return _ADAPTER.dump_json(document, indent=1) + b"\n"


def from_json(data: bytes | str) -> Document:
    """A document from a file's bytes. Raises ``ValueError`` that names what is missing or of a wrong type."""
    return _ADAPTER.validate_json(data)
