"""weserv, the server of images.weserv.nl: a module of nginx that uses libvips, too."""

from pathlib import Path

from bench.baselines.interface import Request
from bench.baselines.peers.locate import missing_program, program
from bench.baselines.peers.nginx_server import NginxServer


class Weserv(NginxServer):
    """An nginx that was built with weserv 5; libvips has one thread, as in its own container."""

    name = "weserv"
    what = "weserv in nginx, a process a core"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        if program(self.name):
            return None
        return missing_program(self.name, "build nginx with the module of weserv/images 5.x")

    def program(self) -> Path:
        """See ``NginxServer``."""
        found = program(self.name)
        assert found is not None
        return found

    def modules(self) -> str:
        """See ``NginxServer``: nginx gives its workers only the variables that it is told to."""
        return "env VIPS_CONCURRENCY=1;"

    def location(self) -> str:
        """See ``NginxServer``."""
        return "weserv filter; weserv_process_timeout 120s;"

    def path(self, request: Request, name: str) -> str:
        """See ``FileReader``."""
        form = {"jpeg": "jpg"}.get(request.format, request.format)
        size = f"w={request.width}&h={request.height}&fit=fill"
        return f"/{name}?{size}&output={form}&q={request.quality}"
