"""imagor, a server in Go that uses libvips, too, and the addresses of thumbor."""

import subprocess
from typing import Any

from bench.baselines.interface import Request
from bench.baselines.peers.http_peer import HttpPeer
from bench.baselines.peers.locate import missing_program, program

_LARGEST_UPLOAD = 1 << 30


class Imagor(HttpPeer):
    """imagor with one thread of libvips for each image and no cache, as by default, but with SIMD."""

    name = "imagor"
    what = "imagor, a thread an image"
    health = "/healthcheck"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if program(self.name):
            return None
        return missing_program(self.name, "build imagor 1.9.5 with Go and the headers of libvips")

    def version(self) -> str:
        """See ``Baseline``."""
        command = [str(program(self.name)), "-version"]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        return f"imagor {told.stdout.strip()}"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [
            str(program(self.name)),
            *("-bind", f"127.0.0.1:{self.free_port()}"),
            *("-imagor-unsafe", "-imagor-process-queue-size", "0"),
            *("-upload-loader-enable", "-upload-loader-max-allowed-size", str(_LARGEST_UPLOAD)),
            *("-imagor-request-timeout", "2m", "-imagor-process-timeout", "2m"),
            "-vips-strip-metadata",
            # Its default, 0, turns libvips' SIMD off, which doubles the CPU time. 1 turns off only a target
            # that no processor has.
            *("-vips-vector", "1"),
        ]

    def client_arguments(self, request: Request) -> dict[str, Any]:
        """See ``Served``."""
        size = f"stretch/{request.width}x{request.height}"
        filters = f"filters:format({request.format}):quality({request.quality})"
        return {
            "path": f"/unsafe/{size}/{filters}/",
            "image": str(request.image),
            "form_field": "image",
        }
