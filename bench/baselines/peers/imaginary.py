"""imaginary, a server in Go that uses libvips, too."""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from bench.baselines.interface import Request
from bench.baselines.peers import go_module
from bench.baselines.peers.http_peer import HttpPeer
from bench.baselines.peers.locate import missing_program, peers_folder, program

VERSION = "v1.2.4"

_INSTALLED = "imaginary/imaginary"


class Imaginary(HttpPeer):
    """imaginary on the given cores, with one thread of libvips for each image."""

    name = "imaginary"
    what = "imaginary, a thread an image"
    health = "/health"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if program(self.name, _INSTALLED):
            return None
        return missing_program(self.name, f"run python -m bench.tools.install_peers {self.name}")

    def version(self) -> str:
        """See ``Baseline``: built from a module it says ``dev``, and Go knows the version."""
        command = ["go", "version", "-m", str(program(self.name, _INSTALLED))]
        try:
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):  # no Go here, or not built with Go's modules
            told = ""
        found = re.search(r"h2non/imaginary\s+(v\S+)", told)
        return f"imaginary {found[1] if found else 'of unknown version'}"

    def serves(self, request: Request) -> bool:
        """See ``Baseline``: it has no writer for AVIF."""
        return request.format != "avif"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [
            str(program(self.name, _INSTALLED)),
            *("-a", "127.0.0.1", "-p", str(self.free_port())),
            *("-cpus", str(len(self.cores)), "-log-level", "error"),
            *("-http-read-timeout", "120", "-http-write-timeout", "120"),
        ]

    def environment(self) -> Mapping[str, str]:
        """See ``Served``."""
        return os.environ | {"VIPS_CONCURRENCY": "1"}

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        path = (
            f"/resize?width={request.width}&height={request.height}&force=true&stripmeta=true"
            f"&type={request.format}&quality={request.quality}"
        )
        return {"path": path, "image": str(request.image)}


def install() -> None:
    """Build it with Go. Raises as ``go_module.build`` does."""
    go_module.build("github.com/h2non/imaginary", VERSION, peers_folder() / _INSTALLED)
