"""nginx with its own module for images, ``image_filter``, which uses libgd."""

import re
import subprocess
from pathlib import Path

from PIL import Image

from bench.baselines.interface import Request
from bench.baselines.peers.locate import missing_program, peers_folder, program
from bench.baselines.peers.nginx_server import NginxServer, build

_NAME = "nginx"
_INSTALLED = "nginx/usr/sbin/nginx"
_MODULE = "ngx_http_image_filter_module.so"

_PACKAGES = ("nginx", "libnginx-mod-http-image-filter")

_LOCATION = """
            image_filter resize $arg_width $arg_height;
            image_filter_jpeg_quality 85;
            image_filter_buffer 128M;
"""


class NginxImageFilter(NginxServer):
    """nginx as Debian builds it. It keeps the ratio of the sides, and the format."""

    name = "nginx"
    what = "nginx with image_filter, a process a core"

    def missing(self) -> str | None:
        """See ``Baseline``."""
        found = program(_NAME, _INSTALLED)
        if found is None:
            return missing_program(_NAME, "run python -m bench.tools.install_peers nginx")
        if not _built_in(found) and not _module(found).is_file():
            return f"{found} has no image_filter: Debian has it as libnginx-mod-http-image-filter"
        return None

    def serves(self, request: Request) -> bool:
        """See ``Baseline``."""
        if request.format != "jpeg" or request.quality != 85 or request.image.suffix != ".jpg":
            return False
        with Image.open(request.image) as image:
            return image.width * request.height == image.height * request.width

    def program(self) -> Path:
        """See ``NginxServer``."""
        found = program(_NAME, _INSTALLED)
        assert found is not None
        return found

    def modules(self) -> str:
        """See ``NginxServer``."""
        return "" if _built_in(self.program()) else f"load_module {_module(self.program())};"

    def location(self) -> str:
        """See ``NginxServer``."""
        return _LOCATION

    def path(self, request: Request, name: str) -> str:
        """See ``FileReader``."""
        return f"/{name}?width={request.width}&height={request.height}"


def _built_in(nginx: Path) -> bool:
    return re.search(r"--with-http_image_filter_module(?!=dynamic)", build(nginx)) is not None


def _module(nginx: Path) -> Path:
    """The module's file: beside the program if it was unpacked somewhere, else where it was built for."""
    beside = nginx.parent.parent / "lib" / "nginx" / "modules" / _MODULE
    if beside.is_file():
        return beside
    told = re.search(r"--modules-path=(\S+)", build(nginx))
    return Path(told[1] if told else "modules") / _MODULE


def install() -> None:
    """Unpack Debian's packages, which needs no rights and starts no service; libgd must be there.

    Raises ``subprocess.CalledProcessError``, and ``OSError`` where a program or a library is missing.
    """
    folder = peers_folder() / _NAME
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.deb"):
        old.unlink()
    subprocess.run(["apt-get", "--quiet", "download", *_PACKAGES], cwd=folder, check=True)  # noqa: S607 - as found
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package.name, "."], cwd=folder, check=True)  # noqa: S607 - as found
    needed = subprocess.run(
        ["ldd", str(_module(folder / "usr/sbin/nginx"))],  # noqa: S607 - as found
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    absent = re.findall(r"(\S+) => not found", needed)
    if absent:
        raise FileNotFoundError(f"the image_filter needs {', '.join(absent)}; apt-get install libgd3 has it")
