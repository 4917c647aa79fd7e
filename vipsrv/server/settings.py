"""What can be set on a server: each setting once, with its unit, its default and its bounds.

The command line of ``vipsrv serve`` is made from this model; the environment is read, too (``VIPSRV_WORKERS``
and so on), and a flag wins over it.
"""

import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from vipsrv.options import DEFAULT_QUALITY
from vipsrv.protocol import DEFAULT_HOST, DEFAULT_PORT
from vipsrv.server.cpus import available_cpus

_GIB = 1024**3
_MIB = 1024**2


def _default_spool_dir() -> Path:
    # /tmp is memory on many systems; /var/tmp is for files that are large.
    var_tmp = Path("/var/tmp")  # noqa: S108 - only unlinked files are made there
    return var_tmp if var_tmp.is_dir() else Path(tempfile.gettempdir())


class ServerSettings(BaseSettings):
    """The settings of ``vipsrv serve``. Sizes are bytes and may be written as ``200MB`` or ``2GiB``."""

    model_config = SettingsConfigDict(
        env_prefix="VIPSRV_",
        # What compose makes of "${VIPSRV_WORKERS:-}" is a setting that was not made.
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    host: str = Field(DEFAULT_HOST, min_length=1, description="Address to listen on.")
    port: int = Field(
        DEFAULT_PORT, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one and prints it."
    )
    listen: Annotated[tuple[str, ...], NoDecode] = Field(
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
    quality: int = Field(DEFAULT_QUALITY, ge=1, le=100, description="JPEG quality where none is asked for.")
    max_upload: ByteSize = Field(
        ByteSize(2 * _GIB), ge=1, description="Largest image that is accepted, in bytes."
    )
    formats: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Formats to read, with commas between them, as 'vipsrv formats' names them; "
        "by default all that libvips does not mark as untrusted.",
    )
    tolerate_truncated: bool = Field(
        default=False, description="Answer truncated and corrupt images with what can be saved of them."
    )
    max_pixels: int = Field(2**30, ge=1, description="Largest image that is decoded, in pixels.")
    max_output_pixels: int = Field(
        100_000_000, ge=1, description="Most pixels of all results of a request together."
    )
    max_expansion: int = Field(
        250,
        ge=1,
        description="How many times its size an image may decode to, where that is over 100 MB.",
    )
    job_memory: ByteSize = Field(
        ByteSize(_GIB), ge=_MIB, description="Bytes of memory that the work on one image may take."
    )
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

    @field_validator("listen", "formats", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Several words in one text have commas between them, and maybe spaces."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list):
            return value
        return [word for text in texts for word in _words(text)]


def _words(text: object) -> list[object]:
    return [word.strip() for word in text.split(",")] if isinstance(text, str) else [text]
