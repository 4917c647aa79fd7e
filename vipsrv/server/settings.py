"""The settings of a server, each with its unit, default and bounds.

The flags of ``vipsrv serve``, the variables (``VIPSRV_WORKERS`` and so on) and the keys of the TOML file are
made from ``ServerSettings``; ``configuration`` reads them. The limits of a worker are declared in
``vipsrv/worker_config.py`` and become settings here.

No setting may have a name that begins with ``service_`` or ``port_``: Kubernetes sets such variables. None
may have the name of another one with ``_file`` after it: ``VIPSRV_X_FILE`` names the file with the value of
``x``.
"""

import ipaddress
import logging
import re
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    create_model,
    field_validator,
)

from vipsrv.address import Address, Wire
from vipsrv.options import WATERMARK_PATTERN
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server.api.origins import check_origin
from vipsrv.server.cpus import available_cpus
from vipsrv.server.spool_folder import default_spool_folder
from vipsrv.worker_config import BYTES, WorkerConfig, declarations

RELOADABLE: dict[str, Any] = {"reloadable": True}
"""The ``json_schema_extra`` of a setting that a running server can take over from a changed file."""

_GIB = 1024**3
_MIB = 1024**2
_KIB = 1024

DEFAULT_OPS = "127.0.0.1:9464"
"""The port that OpenTelemetry and many programs use for metrics in the format of Prometheus."""

OFF = "off"

_LEAST_CONNECTIONS_PER_CLIENT = 64
"""Below a bound this small, a single client with a pool of connections would meet it."""

_LEAST_QUEUE_PER_CLIENT = 32
"""As many requests as one connection may have in flight."""


_MOST_WATERMARKS = 16
"""Each may take 16 MiB of memory in every worker."""

_CORES_PER_GATEWAY = 8
"""A gateway keeps at least so many workers busy, even with small images (decision 34)."""


class LogLevel(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level of Python's ``logging``."""
        return logging.getLevelNamesMapping()[self.upper()]


class LogFormat(StrEnum):
    """How lines of the log are rendered; ``auto`` is ``console`` on a terminal and ``json`` otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class AccessLogMode(StrEnum):
    """Which requests get a line in the log."""

    OFF = "off"
    ERRORS = "errors"
    ALL = "all"


def _lower(given: object) -> object:
    return given.lower() if isinstance(given, str) else given


def _words(given: object) -> object:
    """Split one text or several texts at commas, and strip the spaces around each word."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        return given
    return [
        word.strip() if isinstance(word, str) else word
        for text in texts
        for word in (text.split(",") if isinstance(text, str) else [text])
    ]


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""A setting of several words: a list, or one text with commas between them."""


class _ServiceSettings(BaseModel):
    """The first settings in listings: addresses and workers."""

    # Unknown names are refused where they are read. A type checker does not know the settings of the workers.
    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    host: str = Field(
        DEFAULT_HOST,
        min_length=1,
        description="Address to listen on. 0.0.0.0 is every IPv4 address, :: every IPv6 address and no IPv4 "
        "address; for both, use --listen twice.",
    )
    port: int = Field(
        DEFAULT_PORT, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one and prints it."
    )
    listen: Words = Field(
        (),
        description="Address to listen on instead of --host and --port: HOST:PORT, [IPV6]:PORT, "
        "tls://HOST:PORT or unix:/path, and for HTTP http://HOST:PORT, https://HOST:PORT or http+unix:/path. "
        "For several addresses, repeat the flag or separate them by commas.",
    )
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="Worker processes; by default one per core that CPU affinity and cgroup allow, as far as "
        "half of the cgroup's memory holds them.",
    )
    jobs_per_worker: int = Field(
        20_000,
        ge=1,
        description="Number of jobs after which a worker is replaced. With 1, an image that takes over a "
        "worker meets no other image; each job then costs the start of a worker as well.",
        json_schema_extra=RELOADABLE,
    )
    gateways: int = Field(
        0,
        ge=0,
        le=64,
        description="Gateway processes, which share addresses, workers and budgets; 0 means one for each "
        f"{_CORES_PER_GATEWAY} cores that the server may use, at most --workers. Several need Linux.",
    )
    pin_workers: bool = Field(
        default=True,
        description="Whether each worker is pinned to one core. This is the default and makes small images a "
        "quarter faster. A worker that has to wait for its core moves to an idle core.",
    )


def _worker_settings() -> dict[str, Any]:
    """Return the fields of ``WorkerConfig`` as settings: name, type, default, bounds and help text."""
    hints = get_type_hints(WorkerConfig)
    settings = {}
    for field, declared in declarations():
        kind: Any = hints[field.name]
        default: Any = field.default
        if declared.unit == BYTES:
            kind, default = ByteSize, ByteSize(default)
        elif kind == tuple[str, ...] | None:
            kind = Annotated[kind, BeforeValidator(_words)]
        settings[field.name] = (
            kind,
            Field(
                default,
                ge=declared.least,
                le=declared.most,
                description=declared.help,
                json_schema_extra=RELOADABLE if declared.reloadable else None,
            ),
        )
    return settings


# The class is made at run time, so a type checker does not see the settings of the workers. They are read
# through ``ServerSettings.worker_config``, which has types.
if TYPE_CHECKING:

    class _WorkerSettings(_ServiceSettings):
        max_upload: ByteSize = ByteSize(0)  # the server needs it, too
else:
    _WorkerSettings = create_model("_WorkerSettings", __base__=_ServiceSettings, **_worker_settings())


class ServerSettings(_WorkerSettings):
    """The settings of ``vipsrv serve``. Sizes are bytes and may be written as ``200MB`` or ``2GiB``.

    The limits of the workers are read by ``worker_config``.
    """

    watermark: Words = Field(
        (),
        description="Image that requests may lay over their results by its name: NAME=FILE, where NAME is of "
        "lower-case letters, digits, hyphens and underscores. Each worker holds it in memory, with at most "
        "2,048 pixels on a side. For several, repeat the flag or separate them by commas.",
    )
    decode_memory: ByteSize = Field(
        ByteSize(2 * _GIB),
        ge=_MIB,
        description="Bytes of memory that all heavy jobs together may take while they run.",
        json_schema_extra=RELOADABLE,
    )
    connections: int = Field(
        4096,
        ge=1,
        description="Maximum number of connections. For one more, an idle one is closed first; if none is "
        "idle, the new one is refused with 'busy'. The server lowers the number, and says so, if the limit "
        "of open files holds fewer; each takes up to 4.",
        json_schema_extra=RELOADABLE,
    )
    connections_per_client: int = Field(
        0,
        ge=0,
        description="Maximum number of connections of one client address (of one /64 network for IPv6); 0 "
        f"means a quarter of --connections, but at least {_LEAST_CONNECTIONS_PER_CLIENT} and at most half of "
        "them. An address never has more than three times as many connections as there are free places, but "
        "always one. Clients of a unix socket are not bounded.",
        json_schema_extra=RELOADABLE,
    )
    trusted_proxies: Words = Field(
        (),
        description="Addresses of proxies that name their clients by PROXY protocol version 2: 10.0.0.0/8, "
        "2001:db8::1, or unix for all clients of unix sockets. Each connection of a proxy must begin with "
        "the header. For several, repeat the flag or separate them by commas.",
        json_schema_extra=RELOADABLE,
    )
    queue: int = Field(
        1024,
        ge=0,
        description="Maximum number of requests that wait for a worker, of light and of heavy jobs each; "
        "more are refused with 'busy'. Clients that have none waiting may double it.",
        json_schema_extra=RELOADABLE,
    )
    queue_per_client: int = Field(
        0,
        ge=0,
        description="Maximum number of requests from one client address that wait for a worker, of light and "
        f"of heavy jobs each; 0 means half of --queue, but at least {_LEAST_QUEUE_PER_CLIENT}. An IPv6 /64 "
        "network counts as one address, and so do all clients of a unix socket.",
        json_schema_extra=RELOADABLE,
    )
    deadline: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds from the end of an upload to its reply; after them the request fails.",
        json_schema_extra=RELOADABLE,
    )
    idle_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds after which an idle connection is closed.",
        json_schema_extra=RELOADABLE,
    )
    receive_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds within which a client must send 64 KiB of an upload, or the rest of it, and "
        "read as much of a reply.",
        json_schema_extra=RELOADABLE,
    )
    min_rate: ByteSize = Field(
        ByteSize(32 * _KIB),
        ge=0,
        description="Bytes per second at which an upload must arrive and a reply must be read on average, "
        "after the first 10 minutes of each; 0 allows any rate.",
        json_schema_extra=RELOADABLE,
    )
    spool_dir: Path = Field(
        default_factory=default_spool_folder,
        description="Folder for large uploads and results. It should be on a disk.",
    )
    spool_memory: ByteSize = Field(
        ByteSize(256 * _MIB),
        ge=_MIB,
        description="Maximum bytes of uploads and results in memory.",
        json_schema_extra=RELOADABLE,
    )
    spool_disk: ByteSize = Field(
        ByteSize(16 * _GIB),
        ge=0,
        description="Maximum bytes of uploads and results in the spool folder.",
        json_schema_extra=RELOADABLE,
    )
    upload_ttl: float = Field(
        3600.0,
        ge=0,
        description="Seconds for which what has arrived of a resumable upload is kept after its last byte; 0 "
        "means that uploads cannot be resumed.",
        json_schema_extra=RELOADABLE,
    )
    upload_memory: ByteSize = Field(
        ByteSize(64 * _MIB),
        ge=0,
        description="Maximum bytes of --spool-memory that uploads take while they wait to be resumed. More "
        "go to files.",
        json_schema_extra=RELOADABLE,
    )
    upload_disk: ByteSize = Field(
        ByteSize(4 * _GIB),
        ge=0,
        description="Maximum bytes of --spool-disk that uploads take while they wait to be resumed. Beyond "
        "that, and when other requests need the room, the one that has waited longest is removed.",
        json_schema_extra=RELOADABLE,
    )
    user: str | None = Field(
        None,
        description="Name or number of the user that the server changes to after it has bound its listeners, "
        "if it is started as root. Without it the gateway stays root, and only the workers change.",
    )
    drain: float = Field(
        30.0,
        ge=0,
        description="Seconds that the server waits for requests in flight when it stops.",
        json_schema_extra=RELOADABLE,
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds between the signal to stop and the drain. The server serves as before, but says "
        "by PING and /readyz that it is not ready, so that load balancers send their clients elsewhere. "
        "Passed over if the listening sockets live on (systemd, --takeover).",
        json_schema_extra=RELOADABLE,
    )
    cors_origin: Words = Field(
        (),
        description="Origin whose web pages may use the server over HTTP from a browser (CORS): "
        "https://example.com or http://localhost:3000, or * for all. For several, repeat the flag or "
        "separate them by commas. By default no page of another origin may.",
        json_schema_extra=RELOADABLE,
    )
    # Tokens.
    tokens: Path | None = Field(
        None,
        description="Token file, which 'vipsrv token new' creates. With it, clients must send a token.",
        json_schema_extra=RELOADABLE,
    )
    allow_v1: Words = Field(
        (),
        description="Addresses whose version 1 clients need no token, which that version cannot carry: "
        "10.0.0.0/8, 2001:db8::1, or unix for all clients of unix sockets. For several, repeat the flag or "
        "separate them by commas.",
        json_schema_extra=RELOADABLE,
    )
    insecure: bool = Field(
        default=False,
        description="Start without a warning although everyone who can reach the server may use it.",
    )
    # TLS
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the certificate, and of those between it and a root, for listeners "
        "tls://HOST:PORT. The server loads the three TLS files again when they change.",
        json_schema_extra=RELOADABLE,
    )
    tls_key: Path | None = Field(
        None,
        description="PEM file of the certificate's private key, without a password. By default it is in the "
        "file of the certificate.",
        json_schema_extra=RELOADABLE,
    )
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities whose client certificates are accepted. With it every "
        "client of a listener tls://HOST:PORT needs a certificate.",
        json_schema_extra=RELOADABLE,
    )
    # The operator
    ops_listen: str = Field(
        DEFAULT_OPS,
        description="Address at which the operator of the server gets metrics, health and the live page over "
        "HTTP: HOST:PORT, [IPV6]:PORT or unix:/path, or off. Whoever can reach it can read them. If another "
        "program has the default port, the server starts without it.",
    )
    ops_file: Path | None = Field(
        None,
        description="File for the address of the operator's listener, by which a health check finds it; "
        "'off' if there is none.",
    )
    # Hand-over to another server
    control: Path | None = Field(
        None,
        description="Path of a unix socket at which another server with --takeover may take the place of "
        "this one. Only the server's own user and root can use it.",
    )
    takeover: bool = Field(
        default=False,
        description="Take the place of the server that runs with the same --control: use its listening "
        "sockets instead of --host, --port and --listen, and make it stop when this server is ready. If none "
        "runs, start as usual.",
    )

    # Logs
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field(
        LogLevel.INFO,
        description="Lowest level that is logged: debug, info, warning or error. At debug, connections and "
        "the answers to PING and HELLO are logged as well.",
        json_schema_extra=RELOADABLE,
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO,
        description="Form of the log: json has one object a line, console is for people. auto is console on "
        "a terminal, with colours unless NO_COLOR is set, and json otherwise.",
        json_schema_extra=RELOADABLE,
    )
    log_file: Path | None = Field(
        None,
        description="File to which the log is appended instead of standard error. SIGHUP opens it again "
        "after it was renamed.",
        json_schema_extra=RELOADABLE,
    )
    access_log: AccessLogMode = Field(
        AccessLogMode.ALL,
        description="Requests that get a line in the log: all, errors or off. Errors of the server itself "
        "are logged with off, too.",
        json_schema_extra=RELOADABLE,
    )
    access_log_sample: int = Field(
        1,
        ge=1,
        description="With 100, each 100th successful request is logged, and every error. With 1, all are.",
        json_schema_extra=RELOADABLE,
    )

    otel: bool = Field(
        default=False,
        description="Export traces and metrics over OTLP, as the standard variables OTEL_* say "
        "(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on). Needs "
        "'vipsrv[otel]'.",
    )

    pid_file: Path | None = Field(
        None,
        description="File for the process id of the server, by which 'vipsrv reload' finds it. A file beside "
        "it whose name ends in .reload holds how the last reload went.",
    )

    @property
    def client_connections(self) -> int:
        """The maximum number of connections of one client address."""
        quarter, half = self.connections // 4, max(1, self.connections // 2)
        return self.connections_per_client or min(max(_LEAST_CONNECTIONS_PER_CLIENT, quarter), half)

    @property
    def client_queue(self) -> int:
        """The maximum number of waiting requests of one client address in each lane."""
        return self.queue_per_client or max(_LEAST_QUEUE_PER_CLIENT, self.queue // 2)

    @property
    def gateway_count(self) -> int:
        """The number of gateway processes."""
        if self.gateways or sys.platform != "linux":
            return max(1, self.gateways)
        return max(1, min(available_cpus() // _CORES_PER_GATEWAY, self.workers))

    @field_validator("listen")
    @classmethod
    def _addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            if Address.parse(text).wire is Wire.OPS:
                raise ValueError(f"{text!r}: is the address of another setting, --ops-listen")
        return given

    @property
    def ops_address(self) -> Address | None:
        """The address of the operator's listener, ``None`` if there is none."""
        return None if self.ops_listen == OFF else replace(Address.parse(self.ops_listen), wire=Wire.OPS)

    @field_validator("ops_listen")
    @classmethod
    def _ops_listener(cls, given: str) -> str:
        address = None if given == OFF else Address.parse(given)
        if address is not None and (address.tls or address.wire is not Wire.BINARY):
            raise ValueError(f"{given!r} is not HOST:PORT, [IPV6]:PORT, unix:/path or off")
        return given

    @field_validator("watermark")
    @classmethod
    def _watermarks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        names = set()
        for text in given:
            name, equals, path = text.partition("=")
            if not (re.fullmatch(WATERMARK_PATTERN, name) and equals and path):
                raise ValueError(f"{text!r} is not NAME=FILE with a name such as logo or logo-2")
            if name in names:
                raise ValueError(f"{name!r} is given twice")
            names.add(name)
        if len(names) > _MOST_WATERMARKS:
            raise ValueError(f"there are {len(names)}; {_MOST_WATERMARKS} are allowed")
        return given

    @field_validator("trusted_proxies", "allow_v1")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for word in given:
            if word != "unix":
                ipaddress.ip_network(word, strict=False)
        return given

    @field_validator("cors_origin")
    @classmethod
    def _origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for word in given:
            check_origin(word)
        return given

    @classmethod
    def reloadable(cls) -> frozenset[str]:
        """Return the names of the settings that a running server can take over."""
        return frozenset(
            name
            for name, field in cls.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("reloadable")
        )

    def worker_config(self) -> WorkerConfig:
        """Return the settings that are passed to every worker."""
        return WorkerConfig(**{field.name: getattr(self, field.name) for field, _ in declarations()})
