"""imgproxy, a server in Go that uses libvips, too, if its binary is on the path."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from bench.baselines.interface import Request
from bench.baselines.peers.folder import FileReader

_SETTINGS = {
    "IMGPROXY_QUALITY": "85",
    "IMGPROXY_LOG_LEVEL": "error",
    "IMGPROXY_MAX_SRC_RESOLUTION": "500",
    "IMGPROXY_TTL": "1",
}


class Imgproxy(FileReader):
    """imgproxy with a worker a core; it sets libvips to one thread itself."""

    name = "imgproxy"
    what = "imgproxy, a worker a core, the image in a file"
    health = "/health"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if shutil.which("imgproxy"):
            return None
        return "no imgproxy on the path; build github.com/imgproxy/imgproxy with Go and libvips' headers"

    def version(self) -> str:
        """See ``Baseline``."""
        told = subprocess.run([self.command()[0], "version"], check=True, capture_output=True, text=True)
        return f"imgproxy {told.stdout.strip()}"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [shutil.which("imgproxy") or "imgproxy"]

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

    def path(self, request: Request) -> str:
        """See ``FileReader``."""
        size = f"resizing_type:force/width:{request.width}/height:{request.height}"
        return f"/unsafe/{size}/plain/local:///{request.image.name}@jpg"
