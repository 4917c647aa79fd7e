"""A server that a batch starts for itself, and that ends with its process."""

import os
import socket
import tempfile
import uuid
from pathlib import Path

from vipsrv.client.embedded import EmbeddedServer

_LONGEST_PATH = 100
"""Bytes of the path of a unix socket; the system takes 107."""


def own_server(workers: int | None = None) -> EmbeddedServer:
    """Return a server, not yet started, at a unix socket: TCP takes more CPU time for the same bytes."""
    return EmbeddedServer(path=_socket_path() if hasattr(socket, "AF_UNIX") else None, workers=workers)


def _socket_path() -> Path:
    """A path for a unix socket. The server removes it at its end, even if this process dies."""
    name = f"vipsrv-{uuid.uuid4().hex[:12]}.sock"
    path = Path(tempfile.gettempdir()) / name
    return path if len(os.fsencode(path)) <= _LONGEST_PATH else Path("/tmp") / name  # noqa: S108 - random name
