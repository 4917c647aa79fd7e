"""What can be set on a server: each setting once, with its unit, its default and its bounds.

The command line of ``vipsrv serve`` is made from ``ServerSettings``. The environment is read as well
(``VIPSRV_WORKERS`` and so on); a flag wins over it. The limits of a worker are declared in
``vipsrv/worker_config.py`` and become settings here.
"""

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BeforeValidator, ByteSize, Field, create_model
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server.cpus import available_cpus
from vipsrv.worker_config import BYTES, WorkerConfig, declarations

_GIB = 1024**3
_MIB = 1024**2


def _words(given: object) -> object:
    """Split one text or several at their commas; spaces around a word do not count."""
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


class _ServiceSettings(BaseSettings):
    """What is served where, and by how many workers."""

    model_config = SettingsConfigDict(
        env_prefix="VIPSRV_",
        # Compose turns "${VIPSRV_WORKERS:-}" into an empty variable: the setting was not made.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    host: str = Field(DEFAULT_HOST, min_length=1, description="Address to listen on.")
    port: int = Field(
        DEFAULT_PORT, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one and prints it."
    )
    listen: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (),
        description="Listen here instead of --host and --port: HOST:PORT, [IPV6]:PORT or unix:/path. "
        "May be given several times, or several with commas between them.",
    )
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="Worker processes; by default one per core that the affinity and the cgroup allow.",
    )
    pin_workers: bool = Field(
        default=True,
        description="Whether each worker is kept to one core, as it is by default, which makes small images "
        "a quarter faster. One that has to wait for its core moves to an idle one.",
    )
    max_upload: ByteSize = Field(
        ByteSize(2 * _GIB), ge=1, description="Largest image that is accepted, in bytes."
    )


def _worker_settings() -> dict[str, Any]:
    """Each field of ``WorkerConfig`` as a setting: its type and what is declared about it."""
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
    _WorkerSettings = _ServiceSettings
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
        4096, ge=1, description="Connections at a time; a further one is told that the server is busy."
    )
    queue: int = Field(
        1024, ge=0, description="Requests that may wait for a worker; more are refused with 'busy'."
    )
    deadline: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Seconds from the end of an upload to its answer; later it is given up.",
    )
    idle_timeout: float = Field(
        60.0, gt=0, description="Seconds after which a connection with nothing to do is closed."
    )
    receive_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds in which 64 KiB of an upload, or its rest, must arrive, or of a reply be taken.",
    )
    spool_dir: Path = Field(
        default_factory=_default_spool_dir, description="Folder for large uploads and results, on a disk."
    )
    spool_memory: ByteSize = Field(
        ByteSize(256 * _MIB), ge=_MIB, description="Bytes of uploads and results held in memory."
    )
    spool_disk: ByteSize = Field(
        ByteSize(16 * _GIB), ge=0, description="Bytes of uploads and results held in the spool folder."
    )
    drain: float = Field(
        30.0, ge=0, description="Seconds that requests in flight get when the server is told to stop."
    )

    def worker_config(self) -> WorkerConfig:
        """The settings that every worker is told."""
        return WorkerConfig(**{field.name: getattr(self, field.name) for field in fields(WorkerConfig)})
