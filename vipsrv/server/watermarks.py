"""Read the files of ``--watermark`` once, at the start, for all workers.

The server does not decode them: it puts their bytes into memory that each worker reads when it starts. A file
that changes later changes nothing, and a worker that starts later gets the same bytes.
"""

import fcntl
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from vipsrv.errors import StartFailed
from vipsrv.server.settings import ServerSettings
from vipsrv.server.small_file import read_small_file
from vipsrv.worker_config import WatermarkFile, WorkerConfig

MAX_FILE = 4 << 20
"""Bytes of one file."""


class Watermarks:
    """The files that the settings name, in memory until ``close``.

    Raises ``StartFailed`` with the name of one that cannot be read.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.files: tuple[WatermarkFile, ...] = ()
        for text in settings.watermark:
            name, _, path = text.partition("=")
            try:
                data, _ = read_small_file(Path(path), MAX_FILE)
                file = WatermarkFile(name=name, descriptor=_in_memory(data), size=len(data))
            except OSError as error:
                self.close()
                reason = error.strerror or str(error)
                raise StartFailed(f"watermark: {name}: the file {path} cannot be read: {reason}") from None
            self.files += (file,)

    @property
    def names(self) -> list[str]:
        """The names that a request may use."""
        return [file.name for file in self.files]

    def config(self, settings: ServerSettings) -> WorkerConfig:
        """Return what workers need of these settings."""
        return replace(settings.worker_config(), watermarks=self.files)

    def close(self) -> None:
        """Free the memory. No worker can be started after this."""
        for file in self.files:
            os.close(file.descriptor)
        self.files = ()


def _in_memory(data: bytes) -> int:
    """Return the descriptor of memory with these bytes, which nobody can change."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            return os.dup(file.fileno())
    descriptor = os.memfd_create("vipsrv-watermark", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
