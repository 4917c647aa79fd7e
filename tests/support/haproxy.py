"""Debian's HAProxy as a process of its own, with the configuration that docker/haproxy/ has."""

import csv
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.ops import get
from tests.support.running_server import STOP_SECONDS, wait_until
from tests.support.unused_port import unused_port

CONFIGURATION = Path(__file__).parents[2] / "docker" / "haproxy" / "haproxy.cfg"

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


class RunningHaproxy:
    """HAProxy in front of ``servers``: the ports of the binary protocol and of HTTP of each of the three.

    ``port`` and ``http_port`` are its own.
    """

    def __init__(
        self, servers: Sequence[tuple[int, int]], environment: Mapping[str, str] | None = None
    ) -> None:
        assert HAPROXY is not None
        self.port, self.http_port, self._stats_port = unused_port(), unused_port(), unused_port()
        addresses = {
            f"{name}{number}": f"127.0.0.1:{port}"
            for number, ports in enumerate(servers, start=1)
            for name, port in zip(("SERVER", "HTTP"), ports, strict=True)
        }
        binds = {
            "IMAGES_BIND": f"127.0.0.1:{self.port}",
            "HTTP_BIND": f"127.0.0.1:{self.http_port}",
            "STATS_BIND": f"127.0.0.1:{self._stats_port}",
        }
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by stop
        self.process = subprocess.Popen(
            [HAPROXY, "-db", "-f", CONFIGURATION],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **addresses, **binds, **(environment or {})},
        )
        try:
            self.wait_for_states("UP", "UP", "UP")
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> str:
        """What it has written: a line for each connection or request that has ended."""
        return Path(self._log.name).read_text(errors="replace")

    def states(self, backend: str = "images") -> list[str]:
        """What its health checks say of the servers: UP, DOWN, NOLB for one that drains, and what is between
        them (UP 1/2).
        """
        try:
            page = get(f"http://127.0.0.1:{self._stats_port}", "/;csv").text
        except ConnectionRefusedError:
            assert self.process.poll() is None, self.log
            return []
        rows = csv.DictReader(io.StringIO(page.removeprefix("# ")))
        return [
            row["status"] for row in rows if row["pxname"] == backend and row["svname"].startswith("server")
        ]

    def wait_for_states(self, *states: str, backend: str = "images") -> None:
        """Wait until the health checks have found this of the three servers."""
        wait_until(
            lambda: self.states(backend) == list(states), f"{states} at HAProxy: {self.states(backend)}"
        )

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
