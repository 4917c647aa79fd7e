"""Peers that are HTTP servers and listen on a port that they are told."""

import http.client
import socket
import subprocess
import time
from collections.abc import Sequence

from bench.baselines.served import Served

START_SECONDS = 60


class HttpPeer(Served):
    """An HTTP server that prints nothing when it is ready: its ``health`` path is polled instead."""

    client = "bench.baselines.peers.http_client"
    health: str
    """A path that is answered as soon as the server is ready, with ``healthy``."""
    healthy = http.client.OK

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self._ports_told: list[int] = []

    def free_port(self) -> int:
        """Reserve a free port for the server that is started next."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._ports_told.append(listener.getsockname()[1])
        return self._ports_told[-1]

    def wait_until_ready(self, process: subprocess.Popen[str]) -> int:
        """See ``Served``."""
        port = self._ports_told.pop(0)
        end = time.monotonic() + START_SECONDS
        while not self._is_healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start; its messages are above")
            time.sleep(0.05)
        return port

    def _is_healthy(self, port: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", self.health)
            return connection.getresponse().status == self.healthy
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
