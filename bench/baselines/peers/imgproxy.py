"""imgproxy, a server in Go that uses libvips, too."""

import os
import subprocess
from collections.abc import Mapping

from bench.baselines.interface import Request
from bench.baselines.peers.file_reader import FileReader
from bench.baselines.peers.locate import missing_program, program

_SETTINGS = {
    "IMGPROXY_LOG_LEVEL": "error",
    "IMGPROXY_MAX_SRC_RESOLUTION": "500",
    "IMGPROXY_TTL": "1",
    "IMGPROXY_TIMEOUT": "120",
}


class Imgproxy(FileReader):
    """imgproxy with a worker a core; it sets libvips to one thread itself."""

    name = "imgproxy"
    what = "imgproxy, a worker a core"
    health = "/health"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if program(self.name):
            return None
        return missing_program(self.name, "build imgproxy 4.0.12 with Go and the headers of libvips")

    def version(self) -> str:
        """See ``Baseline``."""
        told = subprocess.run([*self.command(), "version"], check=True, capture_output=True, text=True)
        return f"imgproxy {told.stdout.strip()}"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [str(program(self.name))]

    def environment(self) -> Mapping[str, str]:
        """See ``Served``."""
        return (
            os.environ
            | _SETTINGS
            | {
                "IMGPROXY_BIND": f"127.0.0.1:{self.free_port()}",
                "IMGPROXY_LOCAL_FILESYSTEM_ROOT": str(self.folder),
                "IMGPROXY_WORKERS": str(len(self.cores)),
            }
        )

    def path(self, request: Request, name: str) -> str:
        """See ``FileReader``."""
        size = f"resizing_type:force/width:{request.width}/height:{request.height}"
        form = {"jpeg": "jpg"}.get(request.format, request.format)
        return f"/unsafe/{size}/quality:{request.quality}/plain/local:///{name}@{form}"
