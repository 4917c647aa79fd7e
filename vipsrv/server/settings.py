"""The settings of a server, each with its unit, default and bounds.

The command line of ``vipsrv serve`` is made from ``ServerSettings``, which also reads the environment
(``VIPSRV_WORKERS`` and so on); a flag wins over it. The limits of a worker are declared in
``vipsrv/worker_config.py`` and become settings here.
"""

import ipaddress
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BeforeValidator, ByteSize, Field, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from vipsrv.address import is_service_link
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server.cpus import available_cpus
from vipsrv.worker_config import BYTES, WorkerConfig, declarations

_GIB = 1024**3
_MIB = 1024**2

_LEAST_CONNECTIONS_PER_CLIENT = 64
"""Below a bound this small, a single client with a pool of connections would meet it."""

_LEAST_QUEUE_PER_CLIENT = 32
"""As many requests as one connection may have in flight."""


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


def _default_spool_dir() -> Path:
    # On many systems /tmp is in memory; /var/tmp is on a disk.
    var_tmp = Path("/var/tmp")  # noqa: S108 - only unlinked files are created there
    return var_tmp if var_tmp.is_dir() else Path(tempfile.gettempdir())


class _Environment(PydanticBaseSettingsSource):
    """The settings of the environment, without a port that Kubernetes has set; see ``is_service_link``.

    It sets variables that start with ``VIPSRV_SERVICE_`` or ``VIPSRV_PORT_`` as well, so no setting may have
    such a name.
    """

    def __init__(self, settings: type[BaseSettings], variables: PydanticBaseSettingsSource) -> None:
        super().__init__(settings)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of one setting, its name, and whether it still has to be parsed."""
        return self._variables.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """Return the settings that the environment has."""
        settings = self._variables()
        if is_service_link(str(settings.get("port", ""))):
            del settings["port"]
        return settings


class _ServiceSettings(BaseSettings):
    """The first settings in listings: addresses and workers."""

    model_config = SettingsConfigDict(
        env_prefix="VIPSRV_",
        # Compose turns "${VIPSRV_WORKERS:-}" into an empty variable, which counts as unset.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature of the base class
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from: arguments first, then the environment."""
        return init_settings, _Environment(settings_cls, env_settings)

    host: str = Field(
        DEFAULT_HOST,
        min_length=1,
        description="Address to listen on. 0.0.0.0 is every IPv4 address, :: every IPv6 address and no IPv4 "
        "address; for both, use --listen twice.",
    )
    port: int = Field(
        DEFAULT_PORT, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one and prints it."
    )
    listen: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="Address to listen on instead of --host and --port: HOST:PORT, [IPV6]:PORT or "
        "unix:/path. For several addresses, repeat the flag or separate them by commas.",
    )
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="Worker processes; by default one per core that CPU affinity and cgroup allow.",
    )
    jobs_per_worker: int = Field(
        20_000,
        ge=1,
        description="Number of jobs after which a worker is replaced. With 1, an image that takes over a "
        "worker meets no other image; each job then costs the start of a worker as well.",
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
            kind = Annotated[kind, NoDecode, BeforeValidator(_words)]
        settings[field.name] = (
            kind,
            Field(default, ge=declared.least, le=declared.most, description=declared.help),
        )
    return settings


# The class is made at run time, so a type checker does not see the settings of the workers. They are read
# through ``ServerSettings.worker_config``, which has types.
if TYPE_CHECKING:

    class _WorkerSettings(_ServiceSettings):
        max_upload: ByteSize  # the server needs it, too
else:
    _WorkerSettings = create_model("_WorkerSettings", __base__=_ServiceSettings, **_worker_settings())


class ServerSettings(_WorkerSettings):
    """The settings of ``vipsrv serve``. Sizes are bytes and may be written as ``200MB`` or ``2GiB``.

    The limits of the workers are read by ``worker_config``.
    """

    decode_memory: ByteSize = Field(
        ByteSize(2 * _GIB),
        ge=_MIB,
        description="Bytes of memory that all heavy jobs together may take while they run.",
    )
    connections: int = Field(
        4096,
        ge=1,
        description="Maximum number of connections. For one more, an idle one is closed first; if none is "
        "idle, the new one is refused with 'busy'. The server lowers the number, and says so, if the limit "
        "of open files holds fewer; each takes up to 4.",
    )
    connections_per_client: int = Field(
        0,
        ge=0,
        description="Maximum number of connections of one client address (of one /64 network for IPv6); 0 "
        f"means a quarter of --connections, but at least {_LEAST_CONNECTIONS_PER_CLIENT} and at most half of "
        "them. An address never has more than three times as many connections as there are free places, but "
        "always one. Clients of a unix socket are not bounded.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="Addresses of proxies that name their clients by PROXY protocol version 2: 10.0.0.0/8, "
        "2001:db8::1, or unix for all clients of unix sockets. Each connection of a proxy must begin with "
        "the header. For several, repeat the flag or separate them by commas.",
    )
    queue: int = Field(
        1024,
        ge=0,
        description="Maximum number of requests that wait for a worker, of light and of heavy jobs each; "
        "more are refused with 'busy'. Clients that have none waiting may double it.",
    )
    queue_per_client: int = Field(
        0,
        ge=0,
        description="Maximum number of requests from one client address that wait for a worker, of light and "
        f"of heavy jobs each; 0 means half of --queue, but at least {_LEAST_QUEUE_PER_CLIENT}. An IPv6 /64 "
        "network counts as one address, and so do all clients of a unix socket.",
    )
    deadline: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds from the end of an upload to its reply; after them the request fails.",
    )
    idle_timeout: float = Field(60.0, gt=0, description="Seconds after which an idle connection is closed.")
    receive_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds within which a client must send 64 KiB of an upload, or the rest of it, and "
        "read as much of a reply.",
    )
    spool_dir: Path = Field(
        default_factory=_default_spool_dir,
        description="Folder for large uploads and results. It should be on a disk.",
    )
    spool_memory: ByteSize = Field(
        ByteSize(256 * _MIB), ge=_MIB, description="Maximum bytes of uploads and results in memory."
    )
    spool_disk: ByteSize = Field(
        ByteSize(16 * _GIB), ge=0, description="Maximum bytes of uploads and results in the spool folder."
    )
    user: str | None = Field(
        None,
        description="Name or number of the user that the server changes to after it has bound its listeners, "
        "if it is started as root. Without it the gateway stays root, and only the workers change.",
    )
    drain: float = Field(
        30.0, ge=0, description="Seconds that the server waits for requests in flight when it stops."
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

    @property
    def client_connections(self) -> int:
        """The maximum number of connections of one client address."""
        quarter, half = self.connections // 4, max(1, self.connections // 2)
        return self.connections_per_client or min(max(_LEAST_CONNECTIONS_PER_CLIENT, quarter), half)

    @property
    def client_queue(self) -> int:
        """The maximum number of waiting requests of one client address in each lane."""
        return self.queue_per_client or max(_LEAST_QUEUE_PER_CLIENT, self.queue // 2)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for word in given:
            if word != "unix":
                ipaddress.ip_network(word, strict=False)
        return given

    @field_validator("takeover")
    @classmethod
    def _has_control(cls, given: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if given and info.data.get("control") is None:
            raise ValueError("it needs --control, the socket of the server that runs")
        return given

    def worker_config(self) -> WorkerConfig:
        """Return the settings that are passed to every worker."""
        return WorkerConfig(**{field.name: getattr(self, field.name) for field in fields(WorkerConfig)})
