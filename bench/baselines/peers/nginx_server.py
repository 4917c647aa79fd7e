"""nginx with a module that resizes images: what the peers that are such modules share."""

import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from bench.baselines.peers.file_reader import FileReader

_CONFIGURATION = """
{modules}
daemon off;
worker_processes 1;
error_log stderr error;
pid {folder}/{port}.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/{port}.body;
    proxy_temp_path {folder}/{port}.proxy;
    fastcgi_temp_path {folder}/{port}.fastcgi;
    uwsgi_temp_path {folder}/{port}.uwsgi;
    scgi_temp_path {folder}/{port}.scgi;
    server {{
        listen 127.0.0.1:{port};
        location = /health {{ return 200; }}
        location / {{
            root {folder};
            {location}
        }}
    }}
}}
"""


class NginxServer(FileReader):
    """One nginx a core, each with its own port.

    A worker of nginx resizes in its event loop, one image at a time. With one port for all workers the kernel
    spreads a few connections unevenly.
    """

    health = "/health"

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        super().__init__(cores)
        self.instances = len(self.cores)

    @abstractmethod
    def program(self) -> Path:
        """The program. To be called only if it is not missing."""

    @abstractmethod
    def location(self) -> str:
        """The directives by which a location resizes."""

    def modules(self) -> str:
        """The directives that load modules."""
        return ""

    def version(self) -> str:
        """See ``Baseline``."""
        return build(self.program()).splitlines()[0].removeprefix("nginx version: ")

    def command(self) -> list[str]:
        """See ``Served``."""
        port = self.free_port()
        configuration = self.folder / f"{port}.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                modules=self.modules(), folder=self.folder, port=port, location=self.location()
            )
        )
        return [str(self.program()), "-p", str(self.folder), "-c", str(configuration), "-e", "stderr"]


def build(program: Path) -> str:
    """What the program says of its version and its build."""
    return subprocess.run([program, "-V"], check=True, capture_output=True, text=True).stderr
